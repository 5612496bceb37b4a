"""Values as people read them on the screen: rates, losses, shares, times of day, text cut to a width.

Pure functions, used by the widgets; nothing here knows Textual. Durations come from the command line's module, so that
both faces say them alike.
"""

from __future__ import annotations

import math
import time

from rich.cells import cell_len, set_cell_size

from tui.cli.progress import format_duration
from tui.glyphs import Glyphs

__all__ = [
    "format_bar",
    "format_duration",
    "format_loss",
    "format_moment",
    "format_rate",
    "format_share",
    "format_time",
    "shorten",
    "shorten_path",
]


def format_rate(steps_per_second: float | None) -> str:
    """Speed as `3.4 steps/s`, or `12 s/step` when a step takes longer than a second; empty when unknown."""
    if not steps_per_second or not math.isfinite(steps_per_second) or steps_per_second < 0:
        return ""
    if steps_per_second < 1:
        return f"{1 / steps_per_second:.3g} s/step"
    return f"{steps_per_second:.3g} steps/s" if steps_per_second < 100 else f"{steps_per_second:.0f} steps/s"


def format_loss(value: float | None) -> str:
    """Four significant digits; `none` when there is no value, the word when it is not finite."""
    if value is None:
        return "none"
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def format_share(done: int, total: int) -> str:
    """Done part in whole per cent, rounded down, so that 100 % means the end."""
    return f"{_share(done, total):.0%}".replace("%", " %")


def format_bar(done: int, total: int, width: int, glyphs: Glyphs) -> str:
    """A bar of `width` cells, full only at the end."""
    filled = int(_share(done, total) * width)
    return glyphs.full * filled + glyphs.empty * (width - filled)


def format_time(timestamp: float) -> str:
    """Local time of day, `14:03:27`, of seconds since 1970."""
    return time.strftime("%H:%M:%S", time.localtime(timestamp))


def format_moment(timestamp: float, now: float) -> str:
    """Local time of day when it is today's, else date and time, `2026-11-22 14:03`."""
    moment = time.localtime(timestamp)
    is_today = moment[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M", moment)


def shorten(text: str, width: int, glyphs: Glyphs) -> str:
    """Cut `text` at its end to at most `width` cells, wide characters counted as the terminal counts them."""
    if cell_len(text) <= width:
        return text
    room = max(0, width - cell_len(glyphs.ellipsis))
    return (set_cell_size(text, room).rstrip() + glyphs.ellipsis)[: max(width, 0)]


def shorten_path(path: str, width: int, glyphs: Glyphs) -> str:
    """Cut a path at its beginning, because its end tells files apart."""
    if cell_len(path) <= width:
        return path
    kept = path
    while kept and cell_len(kept) + cell_len(glyphs.ellipsis) > width:
        kept = kept[1:]
    return glyphs.ellipsis + kept


def _share(done: int, total: int) -> float:
    share = done / total if total > 0 else 0.0
    return math.floor(100 * min(max(share, 0.0), 1.0)) / 100
