"""A picture that is a word: the caption drawn over it, the payload in its pixels and in a text chunk.

Called by training for `image_embeddings/`, and by `convert`. No torch. Proportions are those of AUTOMATIC1111's webui
for pictures of 512 pixels and more; below, the caption keeps to what can be read.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from engine.embedding.payload import KEY, encode_payload, payload_json
from engine.embedding.pixels import decode_pixels, encode_pixels
from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from engine.text import escape

_LARGEST_PX, _SMALLEST_PX, _TRIAL_PX = 72.0, 9.0, 32.0
_WHITE = (255, 255, 255, 230)
_NARROWEST, _LOWEST = 48, 32
"""Pictures below are left without a caption."""
_WIDE = 240
"""Width from which the footer has room for all three texts."""
_LONGEST_TEXT = 80
_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")


def encode_carrier(embedding: Embedding, image: Image.Image) -> bytes:
    """Make a PNG that carries the word twice, in its pixels and as text; dropped into an embeddings folder, it is one.

    Other programs prompt with `embedding.name`, which is also the title on it.

    Raises:
        VocableError: `picture.small`; `embedding.unsupported` for a word too large for a picture; `embedding.verify`
            when the pixels do not give it back.
    """
    captioned = draw_overlay(
        image,
        title=embedding.name,
        model=embedding.model,
        model_hash=embedding.model_hash,
        vectors=len(embedding.vectors),
        step=embedding.step,
    )
    payload = payload_json(embedding)
    pixels = encode_pixels(np.asarray(captioned), payload, embedding.vectors[0])
    if decode_pixels(pixels) != payload:
        title = f"The pixels of the picture did not give the word '{embedding.name}' back."
        raise VocableError("embedding.verify", title, "Choose another picture.")
    texts = PngInfo()
    texts.add_text(KEY, encode_payload(embedding))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()


def draw_overlay(
    image: Image.Image, *, title: str, model: str, model_hash: str, vectors: int, step: int
) -> Image.Image:
    """Darken the picture towards top and bottom and write on it: the title above; model, hash and counts below.

    Texts are fitted to the width, those of the footer with one size. On a picture too narrow for three of them only
    the counts are written, on one too small for anything nothing is. Characters that no font at hand has
    show as boxes. Returns RGB of the same size.
    """
    width, height = image.size
    picture = image.convert("RGB")
    if width < _NARROWEST or height < _LOWEST:
        return picture
    canvas = Image.composite(Image.new("RGB", picture.size), picture, _shade(width, height))
    draw = ImageDraw.Draw(canvas, "RGBA")
    margin = min(10, width // 26)
    inner = width - 2 * margin
    head = _shorten(f"<{escape(title, _LONGEST_TEXT)}>", inner)
    head_size = _fit(head, max(0.75 * width - 40, 0.5 * width), height)
    draw.text((margin, margin), head, _WHITE, _font(head, head_size), anchor="lt")
    foot = {"r": f"{vectors}v {step}s"}
    if width >= _WIDE:
        foot |= {"l": escape(model, _LONGEST_TEXT), "m": f"[{escape(model_hash, 10)}]" if model_hash else ""}
    foot = {side: _shorten(text, width / 3 - 10 if width >= _WIDE else inner) for side, text in foot.items() if text}
    foot_size = min(_fit(text, width / 3 - 10, height) for text in foot.values())
    for side, text in foot.items():
        x = {"l": margin, "m": width / 2, "r": width - margin}[side]
        draw.text((x, height - margin), text, _WHITE, _font(text, foot_size), anchor=f"{side}s")
    return canvas


def _shade(width: int, height: int) -> Image.Image:
    """How dark each pixel becomes, 0 to 255: black at the upper edge, nearly so at the lower."""
    y = np.arange(height) / height
    rows = np.maximum(1 - np.cos(1.5 * y), 1 - np.cos(1.65 * (1 - y))).clip(0, 1) * 255
    return Image.fromarray(np.repeat(rows.astype(np.uint8)[:, np.newaxis], width, axis=1))


def _shorten(text: str, room: float) -> str:
    """Cut off as much as does not fit even in the smallest size."""
    font = _font(text, _SMALLEST_PX)
    shown = text
    while font.getlength(shown) > room and text:
        text = text[:-1]
        shown = f"{text}…"
    return shown


def _fit(text: str, room: float, height: int) -> float:
    """The size in which a text takes `room` pixels, within what can be read and what the picture has height for."""
    largest = max(_SMALLEST_PX, min(_LARGEST_PX, height / 6))
    return min(max(_TRIAL_PX * room / _font(text, _TRIAL_PX).getlength(text), _SMALLEST_PX), largest)


def _font(text: str, size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font; for a text that it lacks characters of, one of the system's that has them, if there is one."""
    if text.isascii():
        return _load("", size)
    faces = (face for face in ("", *_SYSTEM_FONTS) if _covers(face, "".join(sorted(set(text)))))
    return _load(next(faces, ""), size)


@lru_cache(maxsize=64)
def _covers(face: str, text: str) -> bool:
    try:
        font = _load(face, _TRIAL_PX)
    except OSError:  # Not on this machine.
        return False
    absent = font.getmask("\uffff")
    shapes = (font.getmask(char) for char in text if not char.isspace())
    return not any(shape.size == absent.size and bytes(shape) == bytes(absent) for shape in shapes)


@lru_cache(maxsize=32)
def _load(face: str, size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(face, size) if face else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise VocableError("picture.font", "Pillow was built without FreeType.", "Install Pillow from its wheels.")
    return font
