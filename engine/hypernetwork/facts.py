"""Describes a hypernetwork for people and programs, as `vocable inspect` shows it. No torch.

Called in the inspector.
"""

from __future__ import annotations

import hashlib
from typing import Any

from engine.hypernetwork.network_file import HypernetworkFile
from engine.hypernetwork.write import encode_safetensors


def describe(network: HypernetworkFile) -> dict[str, Any]:
    """Everything that can be said without a model, in plain values.

    `hash12` is of the canonical file, so that equal hypernetworks of differing formats have the same. Texts from the
    file are as they stand there: escape them before they are shown.

    Raises:
        VocableError: from `check_network`.
    """
    return {
        "kind": "hypernetwork",
        "flavour": network.flavour,
        "name": network.name,
        "step": network.step,
        "model": network.model,
        "model_hash": network.model_hash,
        "family": network.family,
        "sizes": list(network.sizes),
        "activation": network.activation,
        "weight_init": network.weight_init,
        "layer_norm": network.layer_norm,
        "activate_output": network.activate_output,
        "dropout": list(network.dropout),
        "last_layer_dropout": network.last_layer_dropout,
        "info": network.info or "",
        "widths": sorted(network.widths),
        "parameters": network.parameters,
        "hash12": hashlib.sha256(encode_safetensors(network)).hexdigest()[:12],
    }
