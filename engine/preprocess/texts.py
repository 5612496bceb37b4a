"""Names of prepared pictures, and the text that lay beside a source picture.

Called by run and plan. Names: `00012-0-stem.png`, the picture's place in the source folder, its count, the stem.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from engine.dataset.captions import read_caption
from engine.preprocess.caption_names import stem_with_caption
from engine.preprocess.request import Existing

_MIN_DIGITS = 5
_MAX_STEM_BYTES = 200
"""With number and ending, a name stays within what file systems take."""


def digits_for(total: int) -> int:
    """Digits that the numbers of so many pictures take, so that names sort as the pictures do."""
    return max(_MIN_DIGITS, len(str(max(total - 1, 0))))


def name_stem(number: int, digits: int, count: int, source: Path, caption: str = "") -> str:
    """Name, without its ending, of the prepared picture `count` of the source picture `number`, both from 0.

    Args:
        caption: put in the place of the source's stem where there is one.
    """
    prefix = f"{number:0{digits}}-{count}"
    return stem_with_caption(prefix, caption) if caption else f"{prefix}-{short_stem(source)}"


def short_stem(source: Path) -> str:
    """The stem of a picture, cut where it would make a name too long."""
    data = os.fsencode(source.stem)
    return source.stem if len(data) <= _MAX_STEM_BYTES else data[:_MAX_STEM_BYTES].decode(errors="ignore")


def read_existing(picture: Path) -> str:
    """The text beside a picture on one line; empty when there is none.

    Raises:
        VocableError: `dataset.caption`.
    """
    return read_caption(picture) if picture.with_suffix(".txt").is_file() else ""


def combine(existing: str, made: str, how: Existing) -> str:
    """The caption of a picture from the text that was there and the one that was made (webui.md section 8)."""
    if how == "ignore":
        return made
    if how == "copy":
        return existing or made
    parts = (existing, made) if how == "prepend" else (made, existing)
    return " ".join(part for part in parts if part)


def hash_bytes(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
