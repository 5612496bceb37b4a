"""A tensor as a file describes it: type, shape and place, checked before a single number is looked at.

Made by the readers of containers (`tensors`, `archive`, `legacy`, `payload`), read by `layouts`. No torch. Types are
called as safetensors calls them; every type may be described, but only the four of floating point can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import VocableError

FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Types that can be read, with their bytes."""

MAX_RANK = 8

_FAR = 1 << 48


@dataclass(frozen=True)
class Storage:
    """A run of numbers in a file, which several tensors may look into."""

    dtype: str
    count: int
    load: Callable[[], bytes | memoryview]
    """Gives the bytes; called only for tensors that are read. May raise VocableError."""


@dataclass(frozen=True)
class StoredTensor:
    """Made by `describe_tensor`, which has checked that it stays inside its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In numbers, not bytes."""

    def read(self) -> NDArray[np.floating]:
        """A copy of its numbers; see `view`."""
        return np.array(self.view())

    def view(self) -> NDArray[np.floating]:
        """Its numbers where they lie in the file, not to be written to; of bfloat16 a copy in float32.

        Raises:
            VocableError: `embedding.unreadable` for types without fractions and for storages of the wrong length.
        """
        dtype = self.storage.dtype
        if dtype not in FLOATS:
            title = f"The vectors are stored as numbers of type {dtype}; only {', '.join(FLOATS)} are read."
            raise VocableError("embedding.unreadable", title, "Save the embedding again as float32 or float16.")
        raw = self.storage.load()
        if len(raw) != self.storage.count * FLOATS[dtype]:
            raise broken_tensor("its numbers are cut short")
        flat = np.frombuffer(raw, "<u2" if dtype == "BF16" else f"<f{FLOATS[dtype]}")
        size = flat.itemsize
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, [stride * size for stride in self.strides], writeable=False
        )
        if dtype == "BF16":
            # The upper half of a float32.
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view


def describe_tensor(storage: Storage, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    """Describe a tensor by numbers from a file.

    Raises:
        VocableError: `embedding.unreadable` when they are no such numbers, reach beyond the storage, or let two
            places of the tensor be one (a stride of 0, say, with which a small file could claim any size).
    """
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise broken_tensor("a tensor has no shape")
    if len(shape) != len(strides) or len(shape) > MAX_RANK:
        raise broken_tensor(f"a tensor has {len(shape)} dimensions with {len(strides)} strides")
    if not all(type(number) is int and 0 <= number < _FAR for number in (offset, *shape, *strides)):
        raise broken_tensor("a tensor's shape, strides or offset are not what they should be")
    if prod(shape) == 0:
        return StoredTensor(storage, 0, shape, (0,) * len(shape))
    reach = 1
    for stride, length in sorted((stride, length) for stride, length in zip(strides, shape, strict=True) if length > 1):
        if stride < reach:
            raise broken_tensor(f"places of a tensor overlap (strides {strides}, shape {shape})")
        reach += (length - 1) * stride
    if offset + reach > storage.count:
        raise broken_tensor(f"a tensor of {prod(shape)} numbers reaches beyond the {storage.count} that the file holds")
    return StoredTensor(storage, offset, shape, strides)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor without gaps."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def whole_array(values: NDArray[np.float64]) -> StoredTensor:
    """Describe numbers that are in memory already."""
    storage = Storage("F64", values.size, values.astype("<f8").tobytes)
    return describe_tensor(storage, 0, values.shape, row_major(values.shape))


def broken_tensor(problem: str) -> VocableError:
    hint = "Copy or download the file again; if it stays so, it is damaged or was made to do harm."
    return VocableError("embedding.unreadable", f"The file cannot be read: {problem}.", hint)
