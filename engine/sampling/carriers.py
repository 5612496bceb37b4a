"""Finds the `parameters` text that a picture carries: a text chunk of a PNG, the EXIF comment of a JPEG or WebP.

Called in the inspector, for pictures are foreign files; no torch. Nothing is decoded but headers, and what is damaged,
too long or no picture at all has no text.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image

from engine.embedding.png import SIGNATURE, find_text
from engine.errors import VocableError

KEY = "parameters"

MAX_BYTES = 64 << 10
"""Longest text that is read."""

_FORMATS = ("JPEG", "WEBP")
_EXIF, _USER_COMMENT = 0x8769, 0x9286
_ENCODINGS = {b"ASCII\0\0\0": "utf-8", b"\0" * 8: "utf-8", b"JIS\0\0\0\0\0": "shift_jis"}
_UNICODE = b"UNICODE\0"


def read_parameters(data: bytes) -> str | None:
    """The text of a PNG, JPEG or WebP file; None when there is none that can be read."""
    if data.startswith(SIGNATURE):
        value = _png_text(data)
        text = None if value is None or len(value) > MAX_BYTES else _decode_chunk(value)
    else:
        comment = _user_comment(data)
        text = None if comment is None or len(comment) > MAX_BYTES else _decode_comment(comment)
    return text.strip("\0") or None if text else None


def _png_text(data: bytes) -> bytes | None:
    try:
        return find_text(data, KEY)
    except VocableError:
        return None


def _decode_chunk(value: bytes) -> str:
    """iTXt is UTF-8, tEXt is Latin-1 but for programs that write UTF-8 into it all the same."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _user_comment(data: bytes) -> bytes | None:
    try:
        with warnings.catch_warnings():
            # Large or slightly damaged pictures; only their headers are looked at.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                comment = image.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    except Exception:
        # Pillow's parsers raise whatever damaged bytes lead them to: SyntaxError, struct.error, KeyError, ...
        return None
    if isinstance(comment, str):
        return comment.encode("utf-8", errors="replace")
    return comment if isinstance(comment, bytes) else None


def _decode_comment(comment: bytes) -> str:
    head, body = comment[:8], comment[8:]
    if head == _UNICODE:
        return body.decode(_utf16_order(body), errors="replace")
    if head in _ENCODINGS:
        return body.decode(_ENCODINGS[head], errors="replace")
    return comment.decode("utf-8", errors="replace")


def _utf16_order(body: bytes) -> str:
    """UTF-16 of either byte order: settings are plain ASCII, whose high bytes are zero."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return "utf-16-be" if body[0::2].count(0) >= body[1::2].count(0) else "utf-16-le"
