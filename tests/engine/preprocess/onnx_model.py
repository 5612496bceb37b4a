"""A tagger's model written byte by byte (ONNX is protobuf): the mean of each colour, weighted, through a sigmoid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tagger_bytes(weights: np.ndarray, bias: np.ndarray, shape: Sequence[int | str], colours_at: int) -> bytes:
    """A model of one input of `shape` that scores `bias.size` tags.

    Args:
        weights: (3, tags), float32; one row for each colour in the input's order.
        colours_at: axis of the colours, 1 or 3.
    """
    axes = [axis for axis in (1, 2, 3) if axis != colours_at]
    nodes = [
        _node("ReduceMean", ["picture"], "mean", _ints("axes", axes) + _int("keepdims", 0)),
        _node("MatMul", ["mean", "weights"], "product"),
        _node("Add", ["product", "bias"], "sum"),
        _node("Sigmoid", ["sum"], "scores"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"tagger")
    graph += _field(5, _tensor("weights", weights)) + _field(5, _tensor("bias", bias))
    graph += _field(11, _value("picture", shape)) + _field(12, _value("scores", ["n", bias.size]))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))


def _node(kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    names = b"".join(_field(1, name.encode()) for name in inputs)
    return names + _field(2, output.encode()) + _field(4, kind.encode()) + attributes


def _int(name: str, value: int) -> bytes:
    return _field(5, _field(1, name.encode()) + _field(3, value) + _field(20, 2))


def _ints(name: str, values: Sequence[int]) -> bytes:
    return _field(5, _field(1, name.encode()) + b"".join(_field(8, value) for value in values) + _field(20, 7))


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_field(1, size) for size in values.shape)
    return dims + _field(2, 1) + _field(8, name.encode()) + _field(9, values.astype("<f4").tobytes())


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = [_field(1, size) if isinstance(size, int) else _field(2, size.encode()) for size in shape]
    tensor = _field(1, 1) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    head = bytearray()
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])
