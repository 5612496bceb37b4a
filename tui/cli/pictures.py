"""Pictures in the terminal, where it can show them: sixel, kitty's protocol, or coloured half blocks.

Used by `generate --show` and `demo`. Nothing is shown, and nothing fails, where stdout is no terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_WIDTH_CELLS = 78


def can_show() -> bool:
    """True when stdout is a terminal that can draw more than lines of text."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def show_pictures(paths: Sequence[Path]) -> None:
    """Draw each picture, as wide as fits."""
    if not can_show():
        return
    # The import asks the terminal what it can do, so it must not happen before a picture is to be shown.
    from rich.console import Console
    from textual_image.renderable import Image

    console = Console()
    for path in paths:
        console.print(Image(path, width=min(_WIDTH_CELLS, console.width - 1), height="auto"))
