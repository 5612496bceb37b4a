"""The legacy serialisation of `torch.save`, written by hand: no torch, no pickle module, the same bytes each time.

Used for webui's `.pt` files, of embeddings and of hypernetworks: five pickles and then the numbers. The zip of newer
torch has members that webui takes for an attack. The only classes named are float storage, the rebuilding of a
tensor, and OrderedDict.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedding.stored import row_major

Value = (
    None | bool | int | float | str | list["Value"] | tuple["Value", ...] | Mapping[Any, "Value"] | NDArray[np.float32]
)
"""What can be written: keys are texts or integers, and an array becomes a tensor of its own."""

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_PLATFORM: dict[str, Value] = {
    "protocol_version": _PROTOCOL,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


@dataclass
class _Numbers:
    """The arrays met so far, each under the key by which the file finds it."""

    arrays: list[NDArray[np.float32]]

    def add(self, values: NDArray[np.float32]) -> str:
        self.arrays.append(values)
        return str(len(self.arrays) - 1)


def encode_legacy(value: Value) -> bytes:
    """Write a file whose object is `value`; its tensors are float32 on the CPU and need no gradient."""
    numbers = _Numbers([])
    head = b"".join(_pickle(part, numbers) for part in (_MAGIC, _PROTOCOL, _PLATFORM, value))
    keys: list[Value] = [str(number) for number in range(len(numbers.arrays))]
    return b"".join([head, _pickle(keys, numbers), *_storages(numbers)])


def _storages(numbers: _Numbers) -> Iterator[bytes | memoryview]:
    for values in numbers.arrays:
        yield struct.pack("<q", values.size)
        yield np.ascontiguousarray(values, dtype="<f4").reshape(-1).view(np.uint8).data


def _pickle(value: Value, numbers: _Numbers) -> bytes:
    """A pickle of protocol 2 without memo: nothing in it stands twice."""
    return b"\x80\x02" + _opcodes(value, numbers) + b"."


def _opcodes(value: Value, numbers: _Numbers) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8", "replace")
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, np.ndarray):
        return _rebuilt(value, numbers)
    if isinstance(value, Mapping):
        items = (_opcodes(key, numbers) + _opcodes(item, numbers) for key, item in value.items())
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(_opcodes(item, numbers) for item in value) + b"t"
    return b"](" + b"".join(_opcodes(item, numbers) for item in value) + b"e"


def _integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def _rebuilt(values: NDArray[np.float32], numbers: _Numbers) -> bytes:
    """The call that makes a tensor: storage, offset, sizes, strides, requires_grad, hooks."""
    kind = _opcodes("storage", numbers) + b"ctorch\nFloatStorage\n"
    rest = (numbers.add(values), "cpu", values.size, None)
    storage = b"(" + kind + b"".join(_opcodes(item, numbers) for item in rest) + b"tQ"
    sizes, strides = map(_integers, (values.shape, row_major(values.shape)))
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + storage + _integer(0) + sizes + strides + _opcodes(False, numbers) + hooks + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _integers(values: tuple[int, ...]) -> bytes:
    """A tuple; of two numbers in the shorter of two ways."""
    inner = b"".join(map(_integer, values))
    return inner + b"\x86" if len(values) == 2 else b"(" + inner + b"t"
