"""The structure of a hypernetwork's modules: which layers, in which order, with tensors of which shapes. No torch.

Used by readers, writers and the network itself. Names and order are those of AUTOMATIC1111's webui, whose module is one
sequence in which activations, norms and dropouts are counted like layers (`reference/webui.md` 7.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, Protocol, get_args

Activation = Literal[
    "linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "celu", "gelu", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "logsigmoid", "mish", "prelu", "rrelu", "relu6", "selu", "silu", "softplus", "softshrink",
    "softsign", "tanhshrink",
]  # fmt: skip
"""By webui's names; `swish` is Hardswish there, and `linear` is no activation."""

ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)

UNUSABLE_ACTIVATIONS: Final[Mapping[str, str]] = {
    "glu": "it halves the width of a layer, so that no network with it can run",
    "threshold": "it needs numbers that no file says",
    "multiheadattention": "it is no activation",
    **dict.fromkeys(
        ("softmax", "softmax2d", "softmin", "logsoftmax"),
        "on such input it mixes the pictures of a batch, so that a picture would depend on its neighbours",
    ),
}
"""Names that webui lists besides, and what is wrong with each."""

WeightInit = Literal["Normal", "KaimingUniform", "KaimingNormal", "XavierUniform", "XavierNormal"]

WEIGHT_INITS: Final[tuple[WeightInit, ...]] = get_args(WeightInit)

MAX_SIZES = 64
MAX_FACTOR = 64.0
"""Largest ratio of a hidden layer to the module's own width."""

MAX_WIDTH = 8192


class Structured(Protocol):
    """What a structure follows from; see `HypernetworkFile` for the meaning of each."""

    @property
    def sizes(self) -> tuple[float, ...]: ...
    @property
    def activation(self) -> str: ...
    @property
    def layer_norm(self) -> bool: ...
    @property
    def activate_output(self) -> bool: ...
    @property
    def dropout(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class Layer:
    kind: Literal["linear", "activation", "norm", "dropout"]
    index: int
    """Place in the sequence, by which its tensors are called."""
    inputs: int
    outputs: int
    share: float = 0.0
    """Of a dropout: probability that a number becomes zero."""


def sizes_fault(sizes: Sequence[float]) -> str:
    """Say why a layer structure cannot be one, or return an empty string when it can."""
    if not 2 <= len(sizes) <= MAX_SIZES:
        return f"has {len(sizes)} numbers; 2 to {MAX_SIZES} are possible"
    if not all(math.isfinite(size) and 0 < size <= MAX_FACTOR for size in sizes):
        return f"holds a number that is not above 0 and at most {MAX_FACTOR:g}"
    return "" if sizes[0] == sizes[-1] == 1 else "does not begin and end with 1"


def dropout_fault(dropout: Sequence[float], sizes: Sequence[float]) -> str:
    """Say why a dropout structure does not fit a layer structure, or return an empty string."""
    if len(dropout) != len(sizes):
        return f"has {len(dropout)} numbers where the layer structure has {len(sizes)}"
    return "" if all(0 <= share < 1 for share in dropout) else "holds a number that is not from 0 to below 1"


def list_layers(network: Structured, width: int) -> tuple[Layer, ...]:
    """The layers of one module for contexts of `width` channels."""
    edges = [int(width * size) for size in network.sizes]
    last = len(edges) - 2
    layers: list[Layer] = []

    def add(kind: Literal["linear", "activation", "norm", "dropout"], inputs: int, share: float = 0.0) -> None:
        layers.append(Layer(kind, len(layers), inputs, outputs, share))

    for number, (inputs, outputs) in enumerate(pairwise(edges)):
        add("linear", inputs)
        if network.activation != "linear" and (number < last or network.activate_output):
            add("activation", outputs)
        if network.layer_norm:
            add("norm", outputs)
        if network.dropout[number + 1] > 0:
            add("dropout", outputs, network.dropout[number + 1])
    return tuple(layers)


def tensor_shapes(network: Structured, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one module's tensors by name, in the order of its layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in list_layers(network, width):
        name = f"linear.{layer.index}"
        if layer.kind == "linear":
            shapes |= {f"{name}.weight": (layer.outputs, layer.inputs), f"{name}.bias": (layer.outputs,)}
        elif layer.kind == "norm":
            shapes |= {f"{name}.weight": (layer.outputs,), f"{name}.bias": (layer.outputs,)}
        elif layer.kind == "activation" and network.activation == "prelu":
            shapes[f"{name}.weight"] = (1,)
    return shapes


def default_dropout(sizes: Sequence[float], *, used: bool, last_layer: bool) -> tuple[float, ...]:
    """The dropout structure of files that do not say it (`reference/webui.md` 7.1)."""
    if not used or len(sizes) < 3:
        return (0.0,) * len(sizes)
    return (0.0, *(0.3,) * (len(sizes) - 3), 0.3 if last_layer else 0.0, 0.0)
