"""What tells pictures apart: a fingerprint that survives scaling and recompression, and how sharp a picture is.

Measured where pictures are decoded; compared where the results come together. No cv2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE, _KEPT = 32, 8
_TILES = 4
_MAX_COLOUR_DISTANCE = 16.0
"""Mean difference, of 255, of the colours of pictures that are taken for the same."""

_SHARPNESS_SIDE = 512


@dataclass(frozen=True)
class Fingerprint:
    """A perceptual hash (DCT, Zauner 2010) and the colours of a 4 x 4 grid, which keep flat pictures apart."""

    bits: int
    """64 bits: which low frequencies of the grey values lie above their median."""
    colours: bytes
    """48 bytes: red, green, blue of each tile, row by row."""

    def to_text(self) -> str:
        return f"{self.bits:016x}{self.colours.hex()}"

    @staticmethod
    def from_text(text: str) -> Fingerprint:
        """Raises ValueError when `text` is no fingerprint."""
        data = bytes.fromhex(text)
        if len(data) != 8 + _TILES * _TILES * 3:
            raise ValueError("not a fingerprint")
        return Fingerprint(int.from_bytes(data[:8], "big"), data[8:])


class LookAlikes:
    """The pictures seen so far, in order; finds the first that looks like another."""

    def __init__(self, distance: int) -> None:
        self._distance = distance
        self._names: list[str] = []
        self._bits = np.empty(64, np.uint64)
        self._colours = np.empty((64, _TILES * _TILES * 3), np.int16)

    def find(self, mark: Fingerprint) -> tuple[str, int] | None:
        """Name of the first picture within the distance, and its distance in bits; None when there is none."""
        count = len(self._names)
        bits = np.bitwise_count(self._bits[:count] ^ np.uint64(mark.bits))
        for place in np.flatnonzero(bits <= self._distance):
            colours = np.frombuffer(mark.colours, np.uint8).astype(np.int16)
            if np.abs(self._colours[place] - colours).mean() <= _MAX_COLOUR_DISTANCE:
                return self._names[place], int(bits[place])
        return None

    def add(self, name: str, mark: Fingerprint) -> None:
        count = len(self._names)
        if count == len(self._bits):
            self._bits = np.resize(self._bits, 2 * count)
            self._colours = np.resize(self._colours, (2 * count, self._colours.shape[1]))
        self._bits[count] = mark.bits
        self._colours[count] = np.frombuffer(mark.colours, np.uint8)
        self._names.append(name)


def fingerprint(image: Image.Image) -> Fingerprint:
    """Fingerprint of an RGB picture."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    basis = _cosines()
    low = (basis @ grey @ basis.T).reshape(-1)
    above = low > np.median(low[1:])
    bits = int.from_bytes(np.packbits(above).tobytes(), "big")
    return Fingerprint(bits, image.resize((_TILES, _TILES), Image.Resampling.BOX).tobytes())


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian of the grey values, the short side brought to at most 512 pixels; 0 is flat."""
    grey = image.convert("L")
    scale = _SHARPNESS_SIDE / min(grey.size)
    if scale < 1:
        size = (max(3, round(grey.width * scale)), max(3, round(grey.height * scale)))
        grey = grey.resize(size, Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    if min(values.shape) < 3:
        return 0.0
    middle = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return float((around - 4 * middle).var())


def _cosines() -> NDArray[np.float64]:
    """[8, 32]: the lowest rows of the discrete cosine transform."""
    rows, columns = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None]
    cosines: NDArray[np.float64] = np.cos(math.pi / _SIDE * (columns + 0.5) * rows)
    return cosines
