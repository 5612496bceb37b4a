"""Reads hypernetworks from the bytes of a file, by content and not by extension.

Called in the inspector for foreign files and in the worker for our own. No torch; nothing in a file is ever executed.
The containers are those of embeddings, and so are their readers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedding import archive
from engine.embedding.archive import decode_archive
from engine.embedding.legacy import decode_legacy
from engine.embedding.pickles import Limits
from engine.embedding.stored import StoredTensor
from engine.embedding.tensors import decode_tensors
from engine.errors import VocableError
from engine.hypernetwork.metadata import HYPERNETWORK, KIND, read_entries
from engine.hypernetwork.network_file import HypernetworkFile, check_fields, check_network, check_shapes, shape_error
from engine.hypernetwork.structure import default_dropout, tensor_shapes
from engine.names import sanitize_name

MAX_BYTES = 512 << 20
"""SD 1.x at layer structure 1, 2, 1 takes 88 MB; the deepest that people share take some 450 MB."""

LIMITS = Limits(pickle_bytes=4 << 20, steps=400_000, members=2048, verify_all=False)
"""Each tensor is a member of a zip and some dozens of steps of a pickle; checksums are verified as numbers are read."""

_LEGACY = b"\x80"
_KEY = re.compile(r"([1-9][0-9]{0,3})\.([kv])\.(linear\.[0-9]{1,4}\.(?:weight|bias))")
_OLD_KEY = re.compile(r"linear([12])\.(weight|bias)")
_MAX_TEXT = 256
_KEPT = 40
"""Entries of metadata that are kept: leaves room for those that our own header adds."""

_NOUNS = (
    ("one textual-inversion embedding", "a hypernetwork"),
    ("a textual-inversion embedding", "a hypernetwork"),
    ("an embedding", "a hypernetwork"),
    ("no embedding", "no hypernetwork"),
    ("the embedding", "the hypernetwork"),
    ("embeddings have", "hypernetworks have"),
    ("The vectors are", "Its numbers are"),
)
"""What the readers of containers call what they read, and what it is called here."""

_Modules = Mapping[int, tuple[Mapping[str, StoredTensor], Mapping[str, StoredTensor]]]


def is_hypernetwork(data: bytes) -> bool:
    """Whether a file is a hypernetwork by what it holds, whatever else is wrong with it. Reads no numbers."""
    try:
        if data[8:9] == b"{":
            tensors, metadata = decode_tensors(data)
            return metadata.get(KIND) == HYPERNETWORK or (bool(tensors) and all(map(_KEY.fullmatch, tensors)))
        values = decode_pickled(data)
    except VocableError:
        return False
    return isinstance(values, dict) and any(map(_is_module_entry, values.items()))


def read_hypernetwork(data: bytes, stem: str) -> HypernetworkFile:
    """Read a hypernetwork of any known kind: webui's `.pt` in either serialisation, the oldest included, or our own.

    The tensors may lie in `data`: they are not to be written to.

    Args:
        data: the whole file.
        stem: its name without extension; made lawful, it is the hypernetwork's. The name inside the file is not used.

    Raises:
        VocableError: `hypernetwork.unsupported` for files that are something else or ask for what is not known here;
            `hypernetwork.unreadable`, `.shape`, `.not_finite`, `.name` for what cannot be used.
    """
    name = sanitize_name(stem)
    if not name:
        title = f"The file name {stem!r} holds nothing that could name a hypernetwork."
        raise VocableError("hypernetwork.name", title, "Rename the file: letters, digits, blanks and . _ - may stand.")
    if not 1 <= len(data) <= MAX_BYTES:
        title = f"The file is {len(data)} bytes long; a hypernetwork has 1 to {MAX_BYTES}."
        raise VocableError("hypernetwork.unreadable", title, "Copy the file again, or choose another.")
    with worded():
        if data[8:9] == b"{":
            network, modules = _from_safetensors(data, name)
        else:
            network, modules = _from_pickled(decode_pickled(data), name)
        return _fill(network, modules, len(data))


@contextmanager
def worded() -> Iterator[None]:
    """The containers' readers speak of embeddings; what is wrong is the same, its code and its noun are ours."""
    try:
        yield
    except VocableError as error:
        code = error.code.replace("embedding.", "hypernetwork.")
        raise VocableError(code, _reworded(error.title), _reworded(error.hint)) from None


def _reworded(sentence: str) -> str:
    for theirs, ours in _NOUNS:
        sentence = sentence.replace(theirs, ours)
    return sentence


def decode_pickled(data: bytes) -> Any:
    """The object of a file of torch's, in either serialisation. Raises VocableError in the containers' words."""
    if data.startswith(archive.SIGNATURE):
        return decode_archive(data, limits=LIMITS)
    if data.startswith(_LEGACY):
        return decode_legacy(data, limits=LIMITS)
    raise _unsupported("The file is of no kind that hypernetworks are kept in.")


def _from_safetensors(data: bytes, name: str) -> tuple[HypernetworkFile, _Modules]:
    tensors, metadata = decode_tensors(data)
    if not tensors or not all(map(_KEY.fullmatch, tensors)):
        raise _unsupported("The file is safetensors, but holds no hypernetwork.")
    modules: dict[int, tuple[dict[str, StoredTensor], dict[str, StoredTensor]]] = {}
    for key, tensor in tensors.items():
        width, side, inner = _KEY.fullmatch(key).groups()  # type: ignore[union-attr]
        modules.setdefault(int(width), ({}, {}))["kv".index(side)][inner] = tensor
    network = _from_fields(read_entries(metadata), name, flavour="safetensors")
    return replace(network, metadata=dict(list(metadata.items())[:_KEPT])), modules


def _from_pickled(values: Any, name: str) -> tuple[HypernetworkFile, _Modules]:
    entries = [entry for entry in values.items() if _is_module_entry(entry)] if isinstance(values, dict) else []
    if not entries:
        raise _unsupported("The file holds no hypernetwork: nothing in it is a pair of modules under a width.")
    modules = {width: (_rename(pair[0]), _rename(pair[1])) for width, pair in entries}
    is_old = any(_OLD_KEY.fullmatch(str(key)) for _, pair in entries for module in pair for key in module)
    return _from_fields(values, name, flavour="webui-pt-old" if is_old else "webui-pt"), modules


def _is_module_entry(entry: tuple[Any, Any]) -> bool:
    width, pair = entry
    is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(part, dict) for part in pair)
    return type(width) is int and width > 0 and is_pair


def _rename(module: Mapping[Any, Any]) -> dict[str, StoredTensor]:
    """Tensors by their names of today; the oldest files call the two layers linear1 and linear2."""
    found: dict[str, StoredTensor] = {}
    for key, tensor in module.items():
        if not isinstance(tensor, StoredTensor):
            raise _unsupported("Where a module should hold a tensor it holds something else.")
        old = _OLD_KEY.fullmatch(str(key))
        name = f"linear.{int(old[1]) - 1}.{old[2]}" if old else str(key)
        if name in found:
            raise _unsupported(f"The file holds two tensors for {ascii(name)[:60]}.")
        found[name] = tensor
    return found


def _from_fields(fields: Mapping[Any, Any], name: str, *, flavour: str) -> HypernetworkFile:
    """The fields under webui's names, with what a file that lacks them means (`reference/webui.md` 7.1)."""
    sizes = _numbers(fields.get("layer_structure"), name, "layer") or (1.0, 2.0, 1.0)
    last_layer = fields.get("last_layer_dropout") is True
    dropout = _numbers(fields.get("dropout_structure"), name, "dropout")
    activation = fields.get("activation_func")
    step = fields.get("step")
    info = fields.get("optional_info")
    return HypernetworkFile(
        name=name,
        step=step if type(step) is int and 0 <= step < 1 << 53 else None,
        model=_text(fields.get("sd_checkpoint_name")),
        model_hash=_text(fields.get("sd_checkpoint")),
        sizes=sizes,
        activation="linear" if activation is None else _text(activation).lower(),
        weight_init=_text(fields.get("weight_initialization")) or "Normal",
        layer_norm=fields.get("is_layer_norm") is True,
        activate_output=fields.get("activate_output") is not False,
        dropout=dropout or default_dropout(sizes, used=fields.get("use_dropout") is True, last_layer=last_layer),
        last_layer_dropout=last_layer,
        widths={},
        flavour=flavour,
        info=_text(info) if isinstance(info, str) else None,
    )


def _fill(network: HypernetworkFile, modules: _Modules, size: int) -> HypernetworkFile:
    """Give a network its tensors, which are described and not yet looked at, in a file of `size` bytes."""
    network = replace(network, widths=dict.fromkeys(modules, ({}, {})))
    check_fields(network)
    total = 0
    for width, pair in modules.items():
        expected = tensor_shapes(network, width)
        for module in pair:
            check_shapes(network, width, {key: tensor.shape for key, tensor in module.items()}, expected)
            total += sum(2 * prod(shape) for shape in expected.values())  # two bytes each, at least
    if total > size:  # tensors may share their numbers: a small file could claim any size
        raise shape_error(network.name, f"it should hold {total // 2} numbers, but the file has {size} bytes")
    widths = {
        width: (_read(pair[0], tensor_shapes(network, width)), _read(pair[1], tensor_shapes(network, width)))
        for width, pair in sorted(modules.items())
    }
    filled = replace(network, widths=widths)
    check_network(filled)
    return filled


def _read(module: Mapping[str, StoredTensor], names: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    with np.errstate(over="ignore", under="ignore"):
        return {name: np.asarray(module[name].view(), dtype=np.float32) for name in names}


def _numbers(values: Any, name: str, what: str) -> tuple[float, ...] | None:
    """A list of numbers, or None where the file does not say it."""
    if values is None:
        return None
    if not isinstance(values, (list, tuple)) or not values or not all(type(item) in (int, float) for item in values):
        raise shape_error(name, f"its {what} structure is no list of numbers")
    if not all(abs(item) < 1 << 20 and math.isfinite(item) for item in values):
        raise shape_error(name, f"its {what} structure holds numbers that are no use")
    return tuple(float(item) for item in values)


def _text(value: object) -> str:
    """Text of a file, which may be of any length and hold halves of characters."""
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _unsupported(title: str) -> VocableError:
    return VocableError("hypernetwork.unsupported", title, "Choose a .pt or .safetensors file of a hypernetwork.")
