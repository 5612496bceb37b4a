"""Pictures for the screen: read from files in a thread, drawn by textual-image or as plain characters.

The only module that touches textual-image, and only when a picture is shown: importing that library asks the terminal
questions, whose late replies would arrive as typing, unless it finds no terminal.
"""

from __future__ import annotations

import io
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import VocableError
from engine.text import escape
from tui.terminal import Renderer, Terminal

if TYPE_CHECKING:
    from PIL import Image
    from textual.widget import Widget

MAX_EDGE_PX = 768
"""Larger pictures are made smaller in the thread that reads them; no terminal shows more of a preview."""

_RAMP = " .:-=+*#%@"
_SEED = re.compile(r"(?:^|, )Seed: (\d+)")
_import_lock = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A picture ready to be drawn, and what its file says about it."""

    path: Path
    image: Image.Image
    """RGB, at most `MAX_EDGE_PX` on the longer edge."""
    prompt: str
    """Escaped; empty when the file does not say."""
    seed: str


def load_picture(path: Path) -> Picture:
    """Read a preview; blocks, so call it in a thread.

    Raises:
        VocableError: `picture.unreadable` with the reason.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as file:
            parameters = str(file.info.get("parameters", ""))
            image = file.convert("RGB")
    except UnidentifiedImageError:
        raise _unreadable(path, "it is not a PNG file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from None
    image.thumbnail((MAX_EDGE_PX, MAX_EDGE_PX))
    prompt, seed = read_parameters(parameters)
    return Picture(path, image, escape(prompt), seed)


def read_parameters(parameters: str) -> tuple[str, str]:
    """Prompt and seed out of the text that generators put into their pictures."""
    lines = parameters.splitlines()
    last = next((n for n, line in enumerate(lines) if line.startswith(("Negative prompt: ", "Steps: "))), len(lines))
    seed = _SEED.search(lines[-1]) if lines else None
    return " ".join(lines[:last]).strip(), seed[1] if seed else ""


def draw_ascii(image: Image.Image, columns: int, rows: int, *, on_dark: bool) -> str:
    """Draw a picture with plain characters inside `columns` by `rows` cells, which are twice as high as wide."""
    scale = min(columns / image.width, 2 * rows / image.height)
    width, height = max(1, int(image.width * scale)), max(1, int(image.height * scale / 2))
    grey = image.convert("L").resize((width, height)).tobytes()
    ramp = _RAMP if on_dark else _RAMP[::-1]
    characters = "".join(ramp[value * len(ramp) // 256] for value in grey)
    return "\n".join(characters[start : start + width] for start in range(0, len(characters), width))


def load_widget(renderer: Renderer, terminal: Terminal) -> type[Widget]:
    """The widget class that draws pictures by `half`, `sixel` or `kitty`; its `image` may change. Call in a thread."""
    with _import_lock:
        library = _import_quietly()
    cell_size = library._terminal.get_cell_size
    cell_size._result = library._terminal.CellSize(terminal.cell_width, terminal.cell_height)
    classes = {
        "half": library.widget.HalfcellImage,
        "sixel": library.widget.SixelImage,
        "kitty": library.widget.TGPImage,
    }
    widget: type[Widget] = classes[renderer]
    return widget


def _import_quietly() -> Any:
    """Import textual-image while it sees no terminal, so that it asks none."""
    before = sys.__stdout__
    sys.__stdout__ = io.StringIO()  # type: ignore[misc, assignment]
    try:
        import textual_image._terminal
        import textual_image.widget
    finally:
        sys.__stdout__ = before  # type: ignore[misc]
    return textual_image


def _unreadable(path: Path, why: str) -> VocableError:
    return VocableError("picture.unreadable", f"The picture {escape(str(path))} cannot be shown: {escape(why)}.")
