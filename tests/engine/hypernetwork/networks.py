"""Hypernetworks for the tests, and the reference: webui's module after `reference/webui.md` 7.2, made of torch.nn."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.hypernetwork.network_file import HypernetworkFile
from engine.hypernetwork.structure import tensor_shapes


def make_file(
    widths: Sequence[int] = (16, 24), *, seed: int = 0, scale: float = 0.3, **fields: Any
) -> HypernetworkFile:
    """A hypernetwork with random weights."""
    sizes = fields.get("sizes", (1.0, 2.0, 1.0))
    given: dict[str, Any] = {
        "name": "ink",
        "step": 7,
        "model": "v1-5",
        "model_hash": "0a1b2c3d4e",
        "sizes": sizes,
        "activation": "relu",
        "weight_init": "Normal",
        "layer_norm": False,
        "activate_output": False,
        "dropout": (0.0,) * len(sizes),
        "last_layer_dropout": False,
        "widths": {},
        "flavour": "safetensors",
    }
    blank = HypernetworkFile(**{**given, **fields})
    rng = np.random.default_rng(seed)

    def draw(width: int) -> dict[str, Any]:
        shapes = tensor_shapes(blank, width)
        return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}

    return replace(blank, widths={width: (draw(width), draw(width)) for width in widths})


def webui_values(file: HypernetworkFile, **fields: Any) -> dict[Any, Any]:
    """What webui hands to torch.save."""
    states = {
        width: tuple(
            OrderedDict((name, torch.tensor(np.array(values))) for name, values in side.items()) for side in pair
        )
        for width, pair in file.widths.items()
    }
    told = {
        "step": file.step,
        "name": file.name,
        "layer_structure": list(file.sizes),
        "activation_func": file.activation,
        "is_layer_norm": file.layer_norm,
        "weight_initialization": file.weight_init,
        "sd_checkpoint": file.model_hash,
        "sd_checkpoint_name": file.model,
        "activate_output": file.activate_output,
        "use_dropout": any(file.dropout),
        "dropout_structure": list(file.dropout),
        "last_layer_dropout": file.last_layer_dropout,
        "optional_info": None,
    }
    return {**states, **told, **fields}


def save_as(values: Any, *, zipped: bool) -> bytes:
    """What torch.save makes of values."""
    file = io.BytesIO()
    torch.save(values, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


ACTIVATIONS = {
    **{name.lower(): getattr(nn, name) for name in ("ReLU", "LeakyReLU", "ELU", "Tanh", "Sigmoid", "CELU", "GELU")},
    **{
        name.lower(): getattr(nn, name) for name in ("Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LogSigmoid")
    },
    **{name.lower(): getattr(nn, name) for name in ("Mish", "PReLU", "RReLU", "ReLU6", "SELU", "SiLU", "Softplus")},
    **{name.lower(): getattr(nn, name) for name in ("Softshrink", "Softsign", "Tanhshrink")},
    "swish": nn.Hardswish,
}


class ReferenceModule(nn.Module):
    """One module: `x + f(x) * multiplier`."""

    def __init__(self, dim: int, values: dict[Any, Any], state: dict[str, Tensor]) -> None:
        super().__init__()
        sizes, activation = values["layer_structure"], values["activation_func"]
        layers: list[nn.Module] = []
        for i in range(len(sizes) - 1):
            layers.append(nn.Linear(int(dim * sizes[i]), int(dim * sizes[i + 1])))
            is_last = i == len(sizes) - 2
            if activation not in (None, "linear") and (not is_last or values.get("activate_output", True)):
                layers.append(ACTIVATIONS[activation]())
            if values.get("is_layer_norm", False):
                layers.append(nn.LayerNorm(int(dim * sizes[i + 1])))
            if values["dropout_structure"][i + 1] > 0:
                layers.append(nn.Dropout(values["dropout_structure"][i + 1]))
        self.linear = nn.Sequential(*layers)
        self.load_state_dict(state)
        self.eval()

    def forward(self, x: Tensor, multiplier: float = 1.0) -> Tensor:
        y: Tensor = self.linear(x)
        return x + y * multiplier


def reference_context(values: dict[Any, Any], side: int, context: Tensor, multiplier: float) -> Tensor:
    """What keys (side 0) or values (side 1) are computed from, by the object that a webui file holds."""
    dim = context.shape[2]
    if dim not in values:
        return context
    with torch.no_grad():
        changed: Tensor = ReferenceModule(dim, values, values[dim][side])(context, multiplier)
    return changed
