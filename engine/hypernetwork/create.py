"""Makes a hypernetwork that has learnt nothing yet. Called in the worker, by training and by `vocable hypernet new`.

Initialisations are webui's (`reference/webui.md` 7.3). A new network is not the identity: with every rule but zeros it
adds something, small for Normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from engine.errors import VocableError
from engine.hypernetwork.attach import list_widths
from engine.hypernetwork.family import check_family
from engine.hypernetwork.network_file import HypernetworkFile, Module, check_fields
from engine.hypernetwork.read import MAX_BYTES
from engine.hypernetwork.structure import Layer, list_layers, tensor_shapes
from engine.models.load import Model
from engine.randomness import torch_generator

NORMAL_STD = 0.01
PRELU_START = 0.25
_HEADER_BYTES = 2 << 20
"""Of a file beside its numbers, at most: names of tensors, recipe."""


def create_hypernetwork(
    model: Model,
    *,
    name: str,
    sizes: Sequence[float],
    widths: Sequence[int] = (),
    activation: str,
    weight_init: str,
    layer_norm: bool,
    dropout: Sequence[float] = (),
    seed: int,
) -> HypernetworkFile:
    """Draw the weights of a new hypernetwork for a model.

    Args:
        sizes, activation, weight_init, layer_norm, dropout: see `HypernetworkFile`; no dropout means zeros.
        widths: channel counts that get modules; all that the model's attention has, when empty.
        seed: each tensor is drawn from it, its width, its side and its place alone.

    Raises:
        VocableError: `hypernetwork.model` for a family that has none; `hypernetwork.widths` when the model has no
            attention of a width; `hypernetwork.shape` also for one whose file nothing would read; what `check_fields`
            raises.
    """
    check_family(model.entry)
    chosen = tuple(sorted(set(widths))) or tuple(list_widths(model.unet))
    check_widths(model, chosen)
    blank = HypernetworkFile(
        name=name,
        step=0,
        model=model.entry.name,
        model_hash=model.entry.hash,
        sizes=tuple(map(float, sizes)),
        activation=activation,
        weight_init=weight_init,
        layer_norm=layer_norm,
        activate_output=False,
        dropout=tuple(map(float, dropout)) or (0.0,) * len(sizes),
        last_layer_dropout=False,
        widths=dict.fromkeys(chosen, ({}, {})),
        flavour="safetensors",
    )
    check_fields(blank)
    _check_size(blank)
    drawn = {width: (_draw(blank, width, "k", seed), _draw(blank, width, "v", seed)) for width in chosen}
    return replace(blank, widths=drawn)


def check_widths(model: Model, widths: Sequence[int]) -> None:
    """Raises VocableError `hypernetwork.widths` unless the model has attention of every width."""
    known = list_widths(model.unet)
    wrong = [width for width in widths if width not in known]
    if wrong:
        title = f"The model {model.entry.name} has no attention {wrong[0]} channels wide."
        hint = f"Its widths are {', '.join(map(str, known))}; without start.widths all of them get modules."
        raise VocableError("hypernetwork.widths", title, hint)


def _check_size(network: HypernetworkFile) -> None:
    """Raises VocableError `hypernetwork.shape` for one that could be trained but not read again."""
    shapes = [shape for width in network.widths for shape in tensor_shapes(network, width).values()]
    needed = 2 * 4 * sum(map(prod, shapes))
    if needed > MAX_BYTES - _HEADER_BYTES:
        raise VocableError(
            "hypernetwork.shape",
            f"The hypernetwork '{network.name}' would take {needed >> 20} MiB; files of up to {MAX_BYTES >> 20} MiB"
            " are read.",
            "Choose fewer or narrower layers (start.sizes), or fewer widths (start.widths).",
        )


def _draw(network: HypernetworkFile, width: int, side: str, seed: int) -> Module:
    tensors: dict[str, Tensor] = {}
    for layer in list_layers(network, width):
        generator = torch_generator(seed, "hypernetwork", width, side, layer.index)
        tensors |= {f"linear.{layer.index}.{part}": value for part, value in _start(network, layer, generator).items()}
    return {key: tensor.numpy() for key, tensor in tensors.items()}


def _start(network: HypernetworkFile, layer: Layer, generator: torch.Generator) -> dict[str, Tensor]:
    """Weight and bias of a layer, where it has any."""
    if layer.kind == "linear":
        weight = torch.empty(layer.outputs, layer.inputs)
        init_weight(weight, network.weight_init, network.activation, generator)
        return {"weight": weight, "bias": torch.zeros(layer.outputs)}
    if layer.kind == "norm":
        weight = nn.init.normal_(torch.empty(layer.outputs), 0.0, NORMAL_STD, generator=generator)
        return {"weight": weight, "bias": torch.zeros(layer.outputs)}
    if layer.kind == "activation" and network.activation == "prelu":
        return {"weight": torch.full((1,), PRELU_START)}
    return {}


def init_weight(weight: Tensor, rule: str, activation: str, generator: torch.Generator) -> None:
    """Fill a linear layer's weight [out, in]; Kaiming's gain is that of leaky relu (slope 0) for it, else of relu."""
    nonlinearity: Literal["leaky_relu", "relu"] = "leaky_relu" if activation == "leakyrelu" else "relu"
    match rule:
        case "KaimingUniform":
            nn.init.kaiming_uniform_(weight, nonlinearity=nonlinearity, generator=generator)
        case "KaimingNormal":
            nn.init.kaiming_normal_(weight, nonlinearity=nonlinearity, generator=generator)
        case "XavierUniform":
            nn.init.xavier_uniform_(weight, generator=generator)
        case "XavierNormal":
            nn.init.xavier_normal_(weight, generator=generator)
        case _:
            nn.init.normal_(weight, 0.0, NORMAL_STD, generator=generator)
