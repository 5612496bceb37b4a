"""What a webui `.optim` file holds, told to people: the state of the optimizer beside a hypernetwork or an embedding.

Called in the inspector. No torch. It is described and never used: a run of ours resumes from its own checkpoints, and
such a file says neither how its numbers belong to the layers nor what was drawn (`reference/webui.md` 2.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from engine.embedding.stored import StoredTensor
from engine.errors import VocableError
from engine.hypernetwork.read import MAX_BYTES, decode_pickled, worded

_MAX_TEXT = 64
_STATE = "optimizer_state_dict"


def describe_optimizer(data: bytes) -> dict[str, Any]:
    """Describe the file in plain values.

    Returns:
        `kind` (`optimizer`), `of` (`hypernetwork` or `embedding`), `optimizer` (its name, empty when unknown), `hash`
        (of what it belongs to: the first 10 hex digits of a hypernetwork file's SHA-256, or an embedding's checksum),
        `step` and `learn_rate` (None when unknown), `tensors` and `numbers` (how many are trained).

    Raises:
        VocableError: `hypernetwork.unreadable`, or `hypernetwork.unsupported` for what is no such file.
    """
    if not 1 <= len(data) <= 2 * MAX_BYTES:
        title = f"The file is {len(data)} bytes long; the state of an optimizer has 1 to {2 * MAX_BYTES}."
        raise VocableError("hypernetwork.unreadable", title, "Copy the file again, or choose another.")
    with worded():
        values = decode_pickled(data)
    state = values.get(_STATE) if isinstance(values, dict) else None
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        title = "The file holds no state of an optimizer."
        raise VocableError("hypernetwork.unsupported", title, "Choose the .optim file beside a hypernetwork.")
    entries = [entry for entry in state["state"].values() if isinstance(entry, dict)]
    moments = [entry["exp_avg"] for entry in entries if isinstance(entry.get("exp_avg"), StoredTensor)]
    return {
        "kind": "optimizer",
        "of": "hypernetwork" if "optimizer_name" in values else "embedding",
        "optimizer": _text(values.get("optimizer_name")),
        "hash": _text(values.get("hash")),
        "step": _step(entries[0].get("step")) if entries else None,
        "learn_rate": _learn_rate(state.get("param_groups")),
        "tensors": len(moments),
        "numbers": sum(prod(tensor.shape) for tensor in moments),
    }


def _step(value: Any) -> int | None:
    """Older torch counts in an integer, newer in a tensor of one number."""
    if isinstance(value, StoredTensor) and value.shape == ():
        value = value.read().item()
    return int(value) if type(value) in (int, float) and 0 <= value < 1 << 53 else None


def _learn_rate(groups: Any) -> float | None:
    first = groups[0] if isinstance(groups, list) and groups else None
    rate = first.get("lr") if isinstance(first, Mapping) else None
    return float(rate) if isinstance(rate, (int, float)) else None


def _text(value: Any) -> str:
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""
