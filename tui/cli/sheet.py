"""A contact sheet: labelled rows of pictures as one PNG.

Used by `demo` for before and after. Imports Pillow, so it is itself imported only when there is something to draw.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from engine.files import write_atomically

_CELL = 128
_GAP = 8
_LABEL = 28
_COLUMNS = 8
_PAPER = (250, 250, 248)
_INK = (40, 40, 40)


def draw_sheet(path: Path, rows: Sequence[tuple[str, Sequence[Path]]]) -> None:
    """Write the first eight pictures of each `(label, pictures)` row to `path`."""
    width = _GAP + _COLUMNS * (_CELL + _GAP)
    height = _GAP + len(rows) * (_LABEL + _CELL + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for number, (label, pictures) in enumerate(rows):
        top = _GAP + number * (_LABEL + _CELL + _GAP)
        pen.text((_GAP, top + 2), label, fill=_INK, font=font)
        for column, picture in enumerate(pictures[:_COLUMNS]):
            sheet.paste(_load_cell(picture), (_GAP + column * (_CELL + _GAP), top + _LABEL))
    data = io.BytesIO()
    sheet.save(data, "PNG")
    write_atomically(path, data.getvalue())


def _load_cell(path: Path) -> Image.Image:
    """A picture fitted into a cell; small ones are enlarged with their pixels left sharp."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    fitted = picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (_CELL, _CELL), _PAPER)
    cell.paste(fitted, ((_CELL - size[0]) // 2, (_CELL - size[1]) // 2))
    return cell
