"""A hypernetwork as files hold it: plain data in numpy, so that the inspector and every writer work without torch.

Made by `read` and by training, written by `write` and `webui`. The invariant, which `check_network` upholds: for each
width two modules, whose tensors have exactly the names and shapes that `structure` derives, float32 and finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.errors import VocableError
from engine.hypernetwork.structure import (
    ACTIVATIONS,
    MAX_WIDTH,
    UNUSABLE_ACTIVATIONS,
    dropout_fault,
    sizes_fault,
    tensor_shapes,
)

MAX_WIDTHS = 16

Module = Mapping[str, NDArray[np.float32]]
"""Tensors of one module by their names in the file, `linear.<index>.weight` and `linear.<index>.bias`."""


@dataclass(frozen=True, eq=False)
class HypernetworkFile:
    """One hypernetwork. Compared by identity; `engine.hypernetwork.write.is_same` compares bit for bit."""

    name: str
    step: int | None
    """Updates that it has had, where known."""
    model: str
    """Name of the base model that it was trained on, where known."""
    model_hash: str
    sizes: tuple[float, ...]
    """Layer structure: widths of the layers as multiples of the module's own, first and last 1, e.g. (1, 2, 1)."""
    activation: str
    """Key of `structure.ACTIVATIONS`; `linear` is none."""
    weight_init: str
    """How the weights began; for people only once it is trained."""
    layer_norm: bool
    activate_output: bool
    """The last layer has an activation too, as in the oldest files."""
    dropout: tuple[float, ...]
    """Probability behind each layer while training, one for each of `sizes`; 0 for none."""
    last_layer_dropout: bool
    """Kept for other programs, which derive `dropout` from it where that is missing."""
    widths: Mapping[int, tuple[Module, Module]]
    """By channel count of the context: the module of the keys' input and that of the values'."""
    flavour: str
    """`webui-pt`, `webui-pt-old` or `safetensors`."""
    info: str | None = None
    """Free text that webui calls optional_info."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Further entries for the header of a safetensors file."""

    @property
    def family(self) -> str:
        """Models whose text it acts on, by its widths: `sd1`, `sd2`, or `other`."""
        return next((name for width, name in ((768, "sd1"), (1024, "sd2")) if width in self.widths), "other")

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(values.size for _, values in list_tensors(self))


def list_tensors(network: HypernetworkFile) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """All tensors, called `<width>.<k or v>.<name in its module>`, in the order of our own files."""
    for width, modules in network.widths.items():
        for side, module in zip("kv", modules, strict=True):
            for name in tensor_shapes(network, width):
                yield f"{width}.{side}.{name}", module[name]


def replace_tensors(network: HypernetworkFile, tensors: Mapping[str, NDArray[np.float32]]) -> HypernetworkFile:
    """The same network with other numbers, called as `list_tensors` calls them."""
    widths = {
        width: (_module(network, width, "k", tensors), _module(network, width, "v", tensors))
        for width in network.widths
    }
    return replace(network, widths=widths)


def _module(network: HypernetworkFile, width: int, side: str, tensors: Mapping[str, NDArray[np.float32]]) -> Module:
    return {name: tensors[f"{width}.{side}.{name}"] for name in tensor_shapes(network, width)}


def check_network(network: HypernetworkFile) -> None:
    """Uphold the invariant of this module.

    Raises:
        VocableError: `hypernetwork.unsupported`, `.shape` or `.not_finite`, in words that name what is wrong.
    """
    check_fields(network)
    for width, modules in network.widths.items():
        expected = tensor_shapes(network, width)
        for module in modules:
            check_shapes(network, width, {name: values.shape for name, values in module.items()}, expected)
    for key, values in list_tensors(network):
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise VocableError(
                "hypernetwork.not_finite",
                f"The hypernetwork '{network.name}' holds NaN or infinity (in {key}).",
                "Use an earlier copy; this one was spoilt in training, mostly by too high a learning rate.",
            )


def check_fields(network: HypernetworkFile) -> None:
    """Check everything but the tensors; see `check_network`."""
    sizes, activation = network.sizes, network.activation
    if activation in UNUSABLE_ACTIVATIONS:
        title = (
            f"The hypernetwork '{network.name}' uses the activation '{activation}': {UNUSABLE_ACTIVATIONS[activation]}."
        )
        raise VocableError("hypernetwork.unsupported", title, "Use another hypernetwork.")
    if activation not in ACTIVATIONS:
        title = f"The hypernetwork '{network.name}' uses the activation {ascii(activation)[:60]}, which is not known."
        raise VocableError("hypernetwork.unsupported", title, f"Known are {', '.join(ACTIVATIONS)}.")
    if fault := sizes_fault(sizes):
        raise shape_error(network.name, f"its layer structure {fault}")
    if fault := dropout_fault(network.dropout, sizes):
        raise shape_error(network.name, f"its dropout structure {fault}")
    if not 1 <= len(network.widths) <= MAX_WIDTHS or not all(1 <= width <= MAX_WIDTH for width in network.widths):
        raise shape_error(network.name, f"it has modules for {len(network.widths)} widths, or for odd ones")
    if any(int(width * size) < 1 for width in network.widths for size in sizes):
        raise shape_error(network.name, "a layer of it would be empty")


def check_shapes(
    network: HypernetworkFile, width: int, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare the tensors of one module with what the structure asks for. Raises VocableError `hypernetwork.shape`."""
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            holds, wanted = (_shown(shapes.get(name)) for shapes in (found, expected))
            problem = (
                f"its module of width {width} holds {holds} as {ascii(name)[:60]} where its structure has {wanted}"
            )
            raise shape_error(network.name, problem)


def shape_error(name: str, problem: str) -> VocableError:
    title = f"The hypernetwork '{name}' does not fit together: {problem}."
    return VocableError("hypernetwork.shape", title, "Copy or download the file again, or choose another.")


def _shown(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else " x ".join(map(str, shape)) or "a single number"
