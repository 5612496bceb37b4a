"""The payload that a picture carries in the low bits of two strips beside it, in the layout of AUTOMATIC1111's webui.

Read by the inspector's readers, written by `overlay`. No torch and no Pillow: pixels are arrays [H, W, 3] of uint8.
Layout: [low nibbles][black column][picture][black column][high nibbles], the nibbles being those of one zlib stream of
JSON. It survives every copy that is lossless and unscaled, even one that drops all text chunks.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from engine.errors import VocableError

MAX_PAYLOAD = 8 << 20
"""Longest JSON that is packed or unpacked, in bytes."""

MIN_HEIGHT = 16
"""Rows that a picture must have: in a lower strip a column could be black by chance and pass for a separator."""

_MAX_PACKED = MAX_PAYLOAD + (64 << 10)
"""What a stream of MAX_PAYLOAD bytes takes at worst; the rest of a strip is fill."""

_MULTIPLIER, _INCREMENT = 1664525, 1013904223
_LOW, _HIGH, _NIBBLE = np.uint8(0x0F), np.uint8(0xF0), np.uint8(4)
_CELL, _DOT = 8, 6
_DOTS = 1024


def decode_pixels(pixels: NDArray[np.uint8]) -> bytes | None:
    """The JSON in a picture's strips, not yet parsed; None for a picture without.

    Args:
        pixels: [H, W, 3], RGB, as the file holds them.

    Raises:
        VocableError: `embedding.unreadable` when there are strips but their stream is damaged or beyond MAX_PAYLOAD.
    """
    strips = _find_strips(pixels)
    if strips is None:
        return None
    low, high = (_unmask(strip) for strip in strips)
    packed = (high << _NIBBLE | low).tobytes()
    if len(packed) < 2 or packed[0] & 15 != 8 or int.from_bytes(packed[:2], "big") % 31:
        return None  # No zlib stream begins like this: a picture that happens to have black columns.
    return _inflate(packed)


def encode_pixels(pixels: NDArray[np.uint8], payload: bytes, decoration: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Set a picture between two strips that hold the payload.

    Args:
        pixels: [H, W, 3], RGB; at least MIN_HEIGHT rows. The lower it is, the wider the strips.
        payload: JSON; at most MAX_PAYLOAD bytes.
        decoration: numbers (the word's first vector) whose sizes give the dots on the strips their greys.

    Raises:
        VocableError: `picture.small`, or `embedding.unsupported` for a payload that no reader would unpack.
    """
    height = pixels.shape[0]
    if height < MIN_HEIGHT:
        title = f"The picture is {pixels.shape[1]} x {height} pixels; a word needs at least {MIN_HEIGHT} rows."
        raise VocableError("picture.small", title, "Choose a larger picture.")
    if len(payload) > MAX_PAYLOAD:
        title = f"The word takes {len(payload)} bytes as text; a picture carries at most {MAX_PAYLOAD}."
        raise VocableError("embedding.unsupported", title, "Write it in another format, such as safetensors.")
    packed = np.frombuffer(zlib.compress(payload, 9), np.uint8)
    greys = _greys(decoration)
    low = _make_strip(packed & _LOW, height, greys)
    high = _make_strip(packed >> _NIBBLE, height, greys[::-1])
    black = np.zeros((height, 1, 3), np.uint8)
    return np.concatenate([low, black, pixels, black, high], axis=1)


def nibble_stream(length: int) -> NDArray[np.uint8]:
    """The first outputs of the generator that strips are masked with, each 0 to 254; masks use their low 4 bits."""
    states = np.array([_INCREMENT], np.uint32)
    multiplier, increment = _MULTIPLIER, _INCREMENT
    while len(states) < length:
        # One step of this generator made of as many small ones as there are states so far.
        states = np.concatenate([states, states * np.uint32(multiplier) + np.uint32(increment)])
        increment = (multiplier * increment + increment) & 0xFFFFFFFF
        multiplier = multiplier * multiplier & 0xFFFFFFFF
    return (states[:length] % 255).astype(np.uint8)


def _find_strips(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    lit = (pixels[..., 0] != 0) & (pixels[..., 1] != 0) & (pixels[..., 2] != 0)
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not len(rows):
        return None
    inner = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    used = np.bitwise_or.reduce(np.bitwise_or.reduce(inner, axis=0), axis=-1) & 15
    separators = np.flatnonzero(used == 0)
    if len(separators) < 2:
        return None
    low, high = inner[:, : separators[0]], inner[:, separators[-1] + 1 :]
    return (low, high) if low.shape == high.shape and low.size else None


def _unmask(strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The nibbles of a strip, in order; no more of them than a payload can take."""
    rows = -(-_MAX_PACKED // (strip.shape[1] * 3))
    nibbles = strip[:rows].reshape(-1)[:_MAX_PACKED]
    return (nibbles ^ nibble_stream(len(nibbles))) & _LOW


def _inflate(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        payload = unpacker.decompress(packed, MAX_PAYLOAD + 1)
    except zlib.error:
        raise _broken("its stream does not unpack") from None
    if len(payload) > MAX_PAYLOAD:
        raise _broken(f"it is longer than {MAX_PAYLOAD >> 20} MiB")
    if not unpacker.eof:
        raise _broken("its stream is cut short")
    return payload


def _make_strip(nibbles: NDArray[np.uint8], height: int, greys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    length = len(nibbles) + height - len(nibbles) % height
    length += 3 * height - length % (3 * height)
    filled = np.resize(nibbles, length) ^ nibble_stream(length) & _LOW
    strip = filled.reshape(height, -1, 3)
    return strip | _dots(height, strip.shape[1], greys)[..., np.newaxis]


def _greys(decoration: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Up to 1024 greys that use the high nibble only."""
    sizes = np.abs(decoration[:_DOTS].astype(np.float64))
    return (sizes / (sizes.max() or 1) * 255).astype(np.uint8) & _HIGH


def _dots(height: int, width: int, greys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Dots of 6 pixels on a grid of 8 that begins outside the corner, every other row half a cell to the right."""
    y = np.arange(height)[:, np.newaxis] + _DOT
    row = y // _CELL
    x = np.arange(width)[np.newaxis] + _CELL + _DOT - _CELL // 2 * (row % 2)
    column = x // _CELL
    middle = (_DOT - 1) / 2
    inside = (y % _CELL - middle) ** 2 + (x % _CELL - middle) ** 2 <= (_DOT / 2) ** 2
    number = row * (width // _CELL + 2) + column
    dots: NDArray[np.uint8] = np.where(inside, greys[number % len(greys)], np.uint8(0))
    return dots


def _broken(problem: str) -> VocableError:
    hint = "Copy the picture again from where it was made; it must not be scaled, nor saved with loss."
    return VocableError("embedding.unreadable", f"The word in the picture's pixels cannot be read: {problem}.", hint)
