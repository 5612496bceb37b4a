"""The fields of a hypernetwork as entries of a safetensors header, and back. All values are strings. No torch.

Used by `read` and `write`; the keys are written down here only. Where webui's files have a field, the entry has its
name behind `vocable.`, and numbers, lists and truth values are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.hypernetwork.network_file import HypernetworkFile

KIND = "vocable.kind"
HYPERNETWORK = "hypernetwork"

_PREFIX = "vocable."
_TEXTS = ("activation_func", "weight_initialization", "optional_info", "sd_checkpoint", "sd_checkpoint_name")
_VALUES = (
    *("step", "layer_structure", "is_layer_norm", "activate_output", "use_dropout", "dropout_structure"),
    "last_layer_dropout",
)
_MAX_VALUE = 4096
"""Characters of a JSON value: the longest are lists of some dozens of numbers."""


def webui_fields(network: HypernetworkFile) -> dict[str, Any]:
    """What webui's files say of a hypernetwork beside its modules, in its order; activations always as a text."""
    return {
        "step": network.step or 0,
        "name": network.name,
        "layer_structure": list(network.sizes),
        "activation_func": network.activation,
        "is_layer_norm": network.layer_norm,
        "weight_initialization": network.weight_init,
        "sd_checkpoint": network.model_hash or None,
        "sd_checkpoint_name": network.model or None,
        "activate_output": network.activate_output,
        "use_dropout": any(network.dropout),
        "dropout_structure": list(network.dropout),
        "last_layer_dropout": network.last_layer_dropout,
        "optional_info": network.info,
    }


def header_entries(network: HypernetworkFile) -> dict[str, str]:
    """All entries of a hypernetwork's file: its own metadata, and what follows from its fields."""
    fields = webui_fields(network)
    texts = {f"{_PREFIX}{key}": fields[key] for key in _TEXTS if fields[key] is not None}
    values = {f"{_PREFIX}{key}": json.dumps(fields[key]) for key in _VALUES}
    if network.step is None:
        del values[f"{_PREFIX}step"]
    return {
        **network.metadata,
        "format": "pt",
        KIND: HYPERNETWORK,
        "vocable.name": network.name,
        "modelspec.title": network.name,
        **texts,
        **values,
    }


def read_entries(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The fields under webui's names, as far as the header says them; what is no JSON is left out."""
    fields: dict[str, Any] = {key: metadata[_PREFIX + key] for key in _TEXTS if _PREFIX + key in metadata}
    for key in _VALUES:
        text = metadata.get(_PREFIX + key, "")
        if 0 < len(text) <= _MAX_VALUE:
            try:
                fields[key] = json.loads(text)
            except (ValueError, RecursionError):
                continue
    return fields
