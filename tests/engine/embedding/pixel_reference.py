"""The pixel payload once more, slowly and straight from its description: one nibble after another, no array tricks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Pixel = tuple[int, int, int]
Column = list[Pixel]


def keys() -> Iterator[int]:
    state = 0
    while True:
        state = (1664525 * state + 1013904223) % 2**32
        yield state % 255


def encode(pixels: NDArray[np.uint8], payload: bytes, *, fill: bool) -> NDArray[np.uint8]:
    """Set a picture between its strips; `fill` repeats the nibbles as newer webuis do, else zeros follow them."""
    height = len(pixels)
    data = zlib.compress(payload, 9)
    length = len(data) + height - len(data) % height
    length += 3 * height - length % (3 * height)
    strips = []
    for nibbles in ([byte & 15 for byte in data], [byte >> 4 for byte in data]):
        padded = [nibbles[i % len(nibbles)] if fill or i < len(nibbles) else 0 for i in range(length)]
        # 96 stands for the dots, which carry nothing.
        masked = [96 | nibble ^ (key & 15) for nibble, key in zip(padded, keys(), strict=False)]
        strips.append(np.array(masked, np.uint8).reshape(height, length // (3 * height), 3))
    black = np.zeros((height, 1, 3), np.uint8)
    return np.hstack([strips[0], black, pixels, black, strips[1]])


def decode(pixels: NDArray[np.uint8]) -> bytes | None:
    height, width, _ = pixels.shape
    lit = [(y, x) for y in range(height) for x in range(width) if min(pixels[y, x]) > 0]
    if not lit:
        return None
    rows = range(min(y for y, _ in lit), max(y for y, _ in lit) + 1)
    columns: list[Column] = []
    for x in range(min(x for _, x in lit), max(x for _, x in lit) + 1):
        columns.append([tuple(int(value) & 15 for value in pixels[y, x]) for y in rows])  # type: ignore[misc]
    black = [x for x, column in enumerate(columns) if sum(map(sum, column)) == 0]
    if len(black) < 2:
        return None
    low, high = unmask(columns[: black[0]], len(rows)), unmask(columns[black[-1] + 1 :], len(rows))
    data = bytes(upper << 4 | lower for upper, lower in zip(high, low, strict=True))
    return zlib.decompressobj().decompress(data)


def unmask(columns: list[Column], height: int) -> list[int]:
    values = [value for y in range(height) for column in columns for value in column[y]]
    return [value ^ (key & 15) for value, key in zip(values, keys(), strict=False)]
