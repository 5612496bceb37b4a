"""Writes hypernetworks: as safetensors, the canonical form with webui's fields in the header, and as webui's `.pt`.

Called in the worker for results, and in the inspector for the canonical copy of a foreign file. No torch.
"""

from __future__ import annotations

from pathlib import Path

from engine.embedding.legacy_writer import Value, encode_legacy
from engine.embedding.tensors import encode_tensors
from engine.errors import VocableError
from engine.files import write_atomically
from engine.hypernetwork.metadata import header_entries, webui_fields
from engine.hypernetwork.network_file import HypernetworkFile, Module, check_network, list_tensors
from engine.hypernetwork.read import read_hypernetwork
from engine.hypernetwork.structure import tensor_shapes


def encode_safetensors(network: HypernetworkFile) -> bytes:
    """The canonical file: equal hypernetworks give equal bytes, and reading these gives it back.

    Raises:
        VocableError: from `check_network`, for what no reader would take.
    """
    check_network(network)
    return encode_tensors(dict(list_tensors(network)), header_entries(network))


def encode_webui(network: HypernetworkFile) -> bytes:
    """The `.pt` file that webui and ComfyUI read; it has no place for `metadata`.

    Raises:
        VocableError: from `check_network`.
    """
    check_network(network)
    fields: dict[int | str, Value] = {
        width: (_state(network, width, keys), _state(network, width, values))
        for width, (keys, values) in network.widths.items()
    }
    fields.update(webui_fields(network))
    return encode_legacy(fields)


def _state(network: HypernetworkFile, width: int, module: Module) -> dict[str, Value]:
    return {name: module[name] for name in tensor_shapes(network, width)}


def is_same(read: HypernetworkFile, written: HypernetworkFile) -> bool:
    """Whether two hypernetworks do the same, bit for bit, and say the same of their training."""
    fields = ("sizes", "activation", "layer_norm", "activate_output", "dropout", "step", "model", "model_hash")
    if any(getattr(read, field) != getattr(written, field) for field in fields):
        return False
    ours, theirs = dict(list_tensors(read)), dict(list_tensors(written))
    return ours.keys() == theirs.keys() and all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)


def save_hypernetwork(path: Path, network: HypernetworkFile) -> None:
    """Write the file, read it again and compare bit for bit before it takes its name.

    Raises:
        VocableError: `disk.full`, `disk.write`, or `disk.verify` when the disk gave back something else; what
            `check_network` raises.
    """
    data = encode_safetensors(network)

    def verify(written: bytes) -> None:
        if written != data or not is_same(read_hypernetwork(written, network.name), network):
            title = f"{path} did not read back as it was written."
            raise VocableError("disk.verify", title, "Check the disk; the file was not put in place.")

    write_atomically(path, data, verify=verify)
