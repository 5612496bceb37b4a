"""Hypernetwork files for the tests of libraries, inspector and service."""

from __future__ import annotations

import numpy as np

from daemon.targets import describe_entry
from engine.hypernetwork.network_file import HypernetworkFile
from engine.hypernetwork.structure import tensor_shapes
from engine.hypernetwork.write import encode_safetensors, encode_webui
from engine.models.catalog import find_model

STARTER = find_model("starter", [])
TARGET = describe_entry(STARTER)


def network(fill: float = 0.25, *, widths: tuple[int, ...] = TARGET.channels, **changes: object) -> HypernetworkFile:
    """A small one for the starter model, every number of it `fill`."""
    values = {"step": 7, "model": "starter", "model_hash": STARTER.hash, "sizes": (1.0, 0.25, 1.0)}
    values |= {"activation": "relu", "weight_init": "Normal", "layer_norm": False, "activate_output": False}
    values |= {"dropout": (0.0, 0.0, 0.0), "last_layer_dropout": False, "flavour": "safetensors"}
    blank = HypernetworkFile("anything", widths={}, **(values | changes))  # type: ignore[arg-type]

    def module(width: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        return {name: np.full(shape, fill, np.float32) for name, shape in tensor_shapes(blank, width).items()}

    filled = {width: (module(width), module(width)) for width in widths}
    return HypernetworkFile("anything", widths=filled, **(values | changes))  # type: ignore[arg-type]


def network_file(fill: float = 0.25, **changes: object) -> bytes:
    return encode_safetensors(network(fill, **changes))  # type: ignore[arg-type]


def webui_file(fill: float = 0.25, **changes: object) -> bytes:
    return encode_webui(network(fill, **changes))  # type: ignore[arg-type]
