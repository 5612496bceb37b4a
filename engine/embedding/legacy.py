"""The serialisation of torch before version 1.6, which webui still writes: pickles in a row, then raw numbers.

Called by `read` in the inspector. Layout: magic number, protocol version, properties of the machine, the object, the
list of storage keys, and for each key the count of numbers (int64) and the numbers. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from engine.embedding import pickles
from engine.embedding.archive import Data, read_identifier
from engine.embedding.standins import ITEM_BYTES, KNOWN, describe_storage, explain_unknown
from engine.embedding.stored import Storage
from engine.errors import VocableError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_HEADER_STEPS = 1000


def decode_legacy(
    data: Data,
    *,
    known: Mapping[str, pickles.Global] = KNOWN,
    explain: Callable[[str], VocableError] = explain_unknown,
    limits: pickles.Limits = pickles.EMBEDDING,
) -> Any:
    """Read the object of a file in the legacy serialisation, as `pickles.interpret` gives it.

    Args:
        known, explain: see `pickles.interpret`.

    Raises:
        VocableError: `embedding.unreadable`.
    """
    places: dict[str, Callable[[], bytes | memoryview]] = {}
    storages: dict[str, Storage] = {}

    def load(identifier: Any) -> Storage | pickles.Global:
        if isinstance(identifier, tuple) and len(identifier) == 4 and identifier[0] == "module":
            # A class with its source code, which torch kept to warn of changes.
            _, kind, _, _ = identifier
            return _known_class(kind)
        dtype, key, count = read_identifier(identifier, 6)
        if identifier[5] is not None:
            raise _broken("its numbers are views of each other, as torch wrote them before version 0.4")
        found = storages.setdefault(key, describe_storage(dtype, count, lambda: places[key]()))
        if (found.dtype, found.count) != (dtype, count):
            raise _broken("it describes the same numbers in two ways")
        return found

    data = memoryview(data) if isinstance(data, bytes) else data
    position = _check_head(data)
    value, length = pickles.interpret(
        bytes(data[position : position + limits.pickle_bytes]),
        known,
        explain=explain,
        load=load,
        max_bytes=limits.pickle_bytes,
        max_steps=limits.steps,
    )
    keys, position = _plain(data, position + length, limits.steps)
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or set(keys) != storages.keys():
        raise _broken("its list of numbers is not that of its tensors")
    for key in keys:
        size = storages[key].count * ITEM_BYTES[storages[key].dtype]
        if key in places or data[position : position + 8] != storages[key].count.to_bytes(8, "little"):
            raise _broken("its numbers are not as many as its tensors say")
        places[key] = partial(_cut, data, position + 8, size)
        position += 8 + size
    if position != len(data):
        raise _broken("it is cut short, or something is appended to it")
    return value


def _cut(data: Data, start: int, size: int) -> bytes | memoryview:
    return data[start : start + size]


def _known_class(kind: Any) -> pickles.Global:
    if not isinstance(kind, pickles.Global):
        raise _broken("it refers to a class that is none")
    return kind


def _check_head(data: Data) -> int:
    magic, position = _plain(data, 0, _HEADER_STEPS)
    if magic != _MAGIC:
        title = "The file is a Python pickle that torch did not write, not an embedding."
        raise VocableError("embedding.unreadable", title, "Choose a file that holds a textual-inversion embedding.")
    protocol, position = _plain(data, position, _HEADER_STEPS)
    if protocol != _PROTOCOL:
        raise _broken(f"it is not of version {_PROTOCOL} of torch's serialisation")
    machine, position = _plain(data, position, _HEADER_STEPS)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _broken("its numbers are in another byte order; save it again on an ordinary computer")
    return position


def _plain(data: Data, position: int, max_steps: int) -> tuple[Any, int]:
    """A pickle that mentions nothing but plain values, and where the next begins."""
    window = bytes(data[position : position + pickles.MAX_BYTES])
    value, length = pickles.interpret(window, {}, explain=explain_unknown, load=_refuse, max_steps=max_steps)
    return value, position + length


def _refuse(_: Any) -> Any:
    raise _broken("its first part refers to numbers")


def _broken(problem: str) -> VocableError:
    hint = "Copy or download the file again; if it stays so, it is damaged."
    return VocableError("embedding.unreadable", f"The file cannot be read as an old torch file: {problem}.", hint)
