"""Pictures in the terminal, where it can show them: sixel, kitty's protocol, coloured half blocks, or characters.

Used by `generate --show` and `demo`. Nothing is shown, and nothing fails, where stdout is no terminal. What a terminal
can do, and how the picture library is kept from asking it, is known in `tui.terminal` and `tui.pictures`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from engine.errors import VocableError
from tui.cli.output import say

if TYPE_CHECKING:
    from PIL import Image

    from tui.terminal import Terminal

_MOST_COLUMNS = 100


def show_pictures(paths: Sequence[Path], *, coarse_share: float = 1.0) -> None:
    """Draw each picture, as large as fits.

    Args:
        paths: PNG files.
        coarse_share: left part (0 to 1) of the width that is shown where a cell of the screen is a pixel or two.
    """
    if not sys.stdout.isatty():
        return
    from tui.pictures import load_picture
    from tui.terminal import examine_terminal

    cache = platformdirs.user_cache_path("vocable") / "terminal.json"
    terminal = examine_terminal("auto", os.environ, sys.stdin.fileno(), sys.stdout.fileno(), cache)
    if terminal.renderer == "off":
        return
    for path in paths:
        try:
            image = load_picture(path).image
        except VocableError as error:
            say(error.title)
            continue
        if terminal.renderer in ("half", "ascii"):
            image = image.crop((0, 0, round(image.width * coarse_share), image.height))
        _draw(image, terminal)


def _draw(image: Image.Image, terminal: Terminal) -> None:
    from rich.console import Console

    from tui.pictures import draw_ascii

    console = Console(highlight=False)
    columns = min(_MOST_COLUMNS, console.width - 1)
    if terminal.renderer == "ascii":
        console.out(draw_ascii(image, columns, columns // 2, on_dark=True))
    else:
        console.print(_renderable(terminal)(image, width=columns, height="auto"))


def _renderable(terminal: Terminal) -> Any:
    from tui.pictures import load_widget

    load_widget(terminal.renderer, terminal)
    from textual_image.renderable import HalfcellImage, SixelImage, TGPImage

    return {"half": HalfcellImage, "sixel": SixelImage, "kitty": TGPImage}[terminal.renderer]
