"""A hypernetwork on its device, and what it does to a context: `x + f(x) * strength`, in float32 (webui.md 7.2).

Called by `attach` for pictures and evaluation, and by training, where gradients reach the tensors. Plain data: a
network is its structure and its tensors, and nothing of it changes while it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.hypernetwork.network_file import HypernetworkFile, list_tensors
from engine.hypernetwork.structure import Layer, list_layers

Side = Literal["k", "v"]

_RRELU = (1 / 8, 1 / 3)
"""Bounds of rrelu's slope."""

_FUNCTIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "relu": functional.relu,
    "leakyrelu": functional.leaky_relu,
    "elu": functional.elu,
    "swish": functional.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "celu": functional.celu,
    "gelu": functional.gelu,
    "hardshrink": functional.hardshrink,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "hardtanh": functional.hardtanh,
    "logsigmoid": functional.logsigmoid,
    "mish": functional.mish,
    "relu6": functional.relu6,
    "selu": functional.selu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softshrink": functional.softshrink,
    "softsign": functional.softsign,
    "tanhshrink": functional.tanhshrink,
    "rrelu": partial(functional.leaky_relu, negative_slope=sum(_RRELU) / 2),
}
"""Without prelu, which has a number of its own; rrelu as it is when nothing is drawn."""


@dataclass(frozen=True)
class Network:
    """A hypernetwork ready for use."""

    name: str
    activation: str
    layers: Mapping[int, tuple[Layer, ...]]
    """Of one module, by width."""
    tensors: Mapping[str, Tensor]
    """Float32, called as `list_tensors` calls them."""


def load_network(file: HypernetworkFile, device: torch.device) -> Network:
    """Copy a hypernetwork to a device; it needs no gradient."""
    tensors = {key: torch.tensor(np.array(values), device=device) for key, values in list_tensors(file)}
    return make_network(file, tensors)


def make_network(file: HypernetworkFile, tensors: Mapping[str, Tensor]) -> Network:
    """A network with the structure of `file` and tensors of its own, called as `list_tensors` calls them."""
    layers = {width: list_layers(file, width) for width in file.widths}
    return Network(file.name, file.activation, layers, tensors)


def change_context(
    network: Network, side: Side, context: Tensor, strength: float = 1.0, *, draws: torch.Generator | None = None
) -> Tensor:
    """What keys or values are computed from instead of `context` [..., C], in its dtype; itself where C has no module.

    Args:
        strength: factor of what is added.
        draws: generator on the context's device for dropout (and rrelu's slopes): given only while training.
    """
    added = output_of(network, side, context, draws=draws)
    if added is None:
        return context
    return (context.float() + added * strength).to(context.dtype)


def output_of(network: Network, side: Side, context: Tensor, *, draws: torch.Generator | None = None) -> Tensor | None:
    """What a module adds to `context` [..., C], in float32; None where C has no module. See `change_context`."""
    width = context.shape[-1]
    if width not in network.layers:
        return None
    hidden = context.float()
    for layer in network.layers[width]:
        hidden = _run_layer(network, layer, f"{width}.{side}.linear.{layer.index}", hidden, draws)
    return hidden


def _run_layer(network: Network, layer: Layer, name: str, hidden: Tensor, draws: torch.Generator | None) -> Tensor:
    weight, bias = (network.tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
    match layer.kind:
        case "linear":
            assert weight is not None
            return functional.linear(hidden, weight, bias)
        case "norm":
            return functional.layer_norm(hidden, (layer.outputs,), weight, bias)
        case "activation":
            return _activate(network.activation, hidden, weight, draws)
        case "dropout":
            return hidden if draws is None else _drop(hidden, layer.share, draws)


def _activate(activation: str, hidden: Tensor, weight: Tensor | None, draws: torch.Generator | None) -> Tensor:
    if weight is not None:
        return functional.prelu(hidden, weight)
    if activation == "rrelu" and draws is not None:
        low, high = _RRELU
        slopes = low + (high - low) * torch.rand(hidden.shape, generator=draws, device=hidden.device)
        return torch.where(hidden < 0, hidden * slopes, hidden)
    return _FUNCTIONS[activation](hidden)


def _drop(hidden: Tensor, share: float, draws: torch.Generator) -> Tensor:
    kept = torch.rand(hidden.shape, generator=draws, device=hidden.device) >= share
    return hidden * kept / (1 - share)
