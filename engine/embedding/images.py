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
from PIL import Image, PngImagePlugin, WebPImagePlugin  # noqa: F401

from engine.embedding import png
from engine.errors import VocableError

MAX_SIDE = 4096

_MAX_WEBP_PIXELS = 1 << 23
"""Its decoder keeps several copies of a picture."""

# With the imports above, whatever Pillow would else import at the first picture, when rights are given up already.
Image.preinit()

_PNG_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def decode_png(data: bytes) -> NDArray[np.uint8] | None:
    """Pixels [H, W, 3] of a PNG file; None when a side is longer than MAX_SIDE.

    Raises:
        VocableError: `embedding.unreadable`.
    """
    file = io.BytesIO()
    file.write(png.SIGNATURE)
    for kind, content in png.walk_chunks(data):
        if kind == b"IHDR" and len(content) != 13:
            raise _broken("its header is malformed")
        if kind == b"IHDR" and not _fits(int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")):
            return None
        if kind in _PNG_NEEDED:
            file.write(png.encode_chunk(kind, bytes(content)))
    file.seek(0)
    return _decode(file, "PNG")


def decode_webp(data: bytes) -> NDArray[np.uint8] | None:
    """Pixels [H, W, 3] of a lossless WebP file; None when it is lossy, animated, or too large.

    Raises:
        VocableError: `embedding.unreadable`.
    """
    stream = next((bytes(content) for kind, content in _riff_chunks(data) if kind == b"VP8L"), None)
    if stream is None:
        return None
    if len(stream) < 5 or stream[0] != 0x2F:
        raise _broken("its header is malformed")
    sizes = int.from_bytes(stream[1:5], "little")
    width, height = (sizes & 0x3FFF) + 1, (sizes >> 14 & 0x3FFF) + 1
    if not _fits(width, height) or width * height > _MAX_WEBP_PIXELS:
        return None
    size = len(stream) + len(stream) % 2 + 12
    file = io.BytesIO()
    file.writelines((b"RIFF", size.to_bytes(4, "little"), b"WEBPVP8L", len(stream).to_bytes(4, "little"), stream))
    file.write(bytes(len(stream) % 2))
    file.seek(0)
    return _decode(file, "WEBP")


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        raise _broken("it is cut short, or something is appended to it")
    position = 12
    while position < len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + size > len(data):
            raise _broken("it is cut short")
        yield data[position : position + 4], memoryview(data)[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _fits(width: int, height: int) -> bool:
    if not width or not height:
        raise _broken("it has no pixels")
    return width <= MAX_SIDE and height <= MAX_SIDE


def _decode(file: io.BytesIO, kind: str) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(file, formats=(kind,)) as image:
                image.load()
                file.close()
                if image.mode == "RGB":
                    return np.asarray(image)
                converted = image.convert("RGB")
            return np.asarray(converted)
    except (OSError, ValueError, SyntaxError, EOFError, Warning) as error:
        raise _broken(f"its pixels do not decode ({type(error).__name__})") from None


def _broken(problem: str) -> VocableError:
    hint = "Copy the picture again from where it was made."
    return VocableError("embedding.unreadable", f"The picture cannot be read: {problem}.", hint)
