"""Decodes a picture in the search for a word in its pixels, with Pillow and within limits.

Called by `read` in the inspector. Pillow gets a file made anew of nothing but size, palette and pixels, so that no
other part of a picture (texts, profiles, frames) reaches it. No torch.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.embedding import png
from engine.errors import VocableError

MAX_SIDE = 4096

_PNG_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def decode_png(data: bytes) -> NDArray[np.uint8] | None:
    """Pixels [H, W, 3] of a PNG file; None when a side is longer than MAX_SIDE.

    Raises:
        VocableError: `embedding.unreadable`.
    """
    chunks = [(kind, bytes(content)) for kind, content in png.walk_chunks(data) if kind in _PNG_NEEDED]
    header = chunks[0][1]
    if len(header) != 13:
        raise _broken("its header is malformed")
    if not _fits(int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")):
        return None
    return _decode(png.SIGNATURE + b"".join(png.encode_chunk(kind, content) for kind, content in chunks), "PNG")


def decode_webp(data: bytes) -> NDArray[np.uint8] | None:
    """Pixels [H, W, 3] of a lossless WebP file; None when it is lossy, animated, or a side is longer than MAX_SIDE.

    Raises:
        VocableError: `embedding.unreadable`.
    """
    stream = next((content for kind, content in _riff_chunks(data) if kind == b"VP8L"), None)
    if stream is None:
        return None
    if len(stream) < 5 or stream[0] != 0x2F:
        raise _broken("its header is malformed")
    sizes = int.from_bytes(stream[1:5], "little")
    if not _fits((sizes & 0x3FFF) + 1, (sizes >> 14 & 0x3FFF) + 1):
        return None
    body = b"WEBPVP8L" + len(stream).to_bytes(4, "little") + stream + bytes(len(stream) % 2)
    return _decode(b"RIFF" + len(body).to_bytes(4, "little") + body, "WEBP")


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        raise _broken("it is cut short, or something is appended to it")
    position = 12
    while position < len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + size > len(data):
            raise _broken("it is cut short")
        yield data[position : position + 4], data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _fits(width: int, height: int) -> bool:
    if not width or not height:
        raise _broken("it has no pixels")
    return width <= MAX_SIDE and height <= MAX_SIDE


def _decode(data: bytes, kind: str) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, UnidentifiedImageError, Warning) as error:
        raise _broken(f"its pixels do not decode ({type(error).__name__})") from None


def _broken(problem: str) -> VocableError:
    hint = "Copy the picture again from where it was made."
    return VocableError("embedding.unreadable", f"The picture cannot be read: {problem}.", hint)
