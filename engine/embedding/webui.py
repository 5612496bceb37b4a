"""The `.pt` file of AUTOMATIC1111's webui, written by hand: no torch, no pickle module, and the same bytes each time.

Called by `convert`. It is the legacy serialisation of `torch.save`, five pickles and then the numbers: the zip of
newer torch has members that webui takes for an attack. The only classes it names are float storage, the rebuilding
of a tensor, and OrderedDict.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.embedding.payload import webui_fields
from engine.embedding.vectors import Embedding, check_vectors


class _Tensor(NamedTuple):
    """A float32 matrix [rows, columns] whose numbers follow the pickles under `key`."""

    key: str
    values: NDArray[np.float32]


_Value = None | bool | int | str | list["_Value"] | dict[str, "_Value"] | _Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_PLATFORM: dict[str, _Value] = {
    "protocol_version": _PROTOCOL,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def encode_webui(embedding: Embedding) -> bytes:
    """Write an embedding as `NAME.pt`: webui, ComfyUI, InvokeAI, diffusers and kohya read it.

    A word for two text encoders is their two tensors alone, for webui knows such a file by having both keys.

    Raises:
        VocableError: from `check_vectors`, for vectors that no reader would take.
    """
    check_vectors(embedding.name, embedding.vectors)
    tensors = {key: _Tensor(str(number), rows) for number, (key, rows) in enumerate(embedding.encoders().items())}
    keys: list[_Value] = [tensor.key for tensor in tensors.values()]
    parts: list[_Value] = [_MAGIC, _PROTOCOL, _PLATFORM, webui_fields(embedding, tensors), keys]
    return b"".join([*(_pickle(part) for part in parts), *(_storage(tensor.values) for tensor in tensors.values())])


def _storage(values: NDArray[np.float32]) -> bytes:
    return struct.pack("<q", values.size) + np.ascontiguousarray(values, dtype="<f4").tobytes()


def _pickle(value: _Value) -> bytes:
    """A pickle of protocol 2 without memo: nothing in it stands twice."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: _Value) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str):
        text = value.encode("utf-8", "replace")
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, _Tensor):
        return _rebuilt(value)
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(key) + _opcodes(item) for key, item in value.items()) + b"u"
    return b"](" + b"".join(_opcodes(item) for item in value) + b"e"


def _integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def _rebuilt(tensor: _Tensor) -> bytes:
    """The call that makes a tensor: storage, offset, sizes, strides, requires_grad, hooks."""
    rows, columns = tensor.values.shape
    kind = _opcodes("storage") + b"ctorch\nFloatStorage\n"
    storage = b"(" + kind + b"".join(_opcodes(item) for item in (tensor.key, "cpu", tensor.values.size, None)) + b"tQ"
    sizes, strides = (_integer(a) + _integer(b) + b"\x86" for a, b in ((rows, columns), (columns, 1)))
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + storage + _integer(0) + sizes + strides + _opcodes(False) + hooks + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
