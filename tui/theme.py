"""How the screen looks: themes, and what the environment says about both.

Read by `app` and the widgets. A state is always a word with a glyph; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from textual.theme import Theme

from engine.errors import VocableError
from tui.glyphs import ASCII, UNICODE, Glyphs
from tui.terminal import Wanted

VOCABLE_DARK = Theme(
    name="vocable-dark",
    primary="#56b4e9",
    secondary="#7fa8c9",
    accent="#e69f00",
    warning="#e69f00",
    error="#f0783c",
    success="#35c0a0",
    foreground="#d8dee4",
    background="#11161b",
    surface="#171d23",
    panel="#222a32",
    dark=True,
)
"""Blue and orange of the Okabe-Ito palette, which people who cannot tell red from green can tell apart."""

VOCABLE_LIGHT = Theme(
    name="vocable-light",
    primary="#0072b2",
    secondary="#44708f",
    accent="#a66f00",
    warning="#a66f00",
    error="#b54708",
    success="#00795a",
    foreground="#1c2329",
    background="#fbfbf9",
    surface="#f1f2f0",
    panel="#e2e5e6",
    dark=False,
)


@dataclass(frozen=True)
class Options:
    """What the user chose through the environment."""

    theme: str = VOCABLE_DARK.name
    glyphs: Glyphs = UNICODE
    pictures: Wanted = "auto"
    mouse: bool = True
    no_color: bool = False


def read_options(environ: Mapping[str, str]) -> Options:
    """Read the options of the screen.

    `VOCABLE_PICTURES` (auto, off, ascii, half, sixel, kitty), `VOCABLE_GLYPHS` (unicode, ascii), `VOCABLE_MOUSE` (on,
    off), `TEXTUAL_THEME` and `NO_COLOR`, which means the terminal's own foreground and background and nothing else.

    Raises:
        VocableError: `usage.option` with the variable, its value and the possible ones.
    """
    default = "ansi-dark" if "NO_COLOR" in environ else VOCABLE_DARK.name
    poor = environ.get("TERM") in ("linux", "dumb") or not _speaks_utf8(environ)
    glyphs = _choose(environ, "VOCABLE_GLYPHS", ("unicode", "ascii"), "ascii" if poor else "unicode")
    pictures: Wanted = _choose(environ, "VOCABLE_PICTURES", get_args(Wanted), "auto")  # type: ignore[assignment]
    return Options(
        theme=environ.get("TEXTUAL_THEME", default),
        glyphs=ASCII if glyphs == "ascii" else UNICODE,
        pictures=pictures,
        mouse=_choose(environ, "VOCABLE_MOUSE", ("on", "off"), "on") == "on",
        no_color="NO_COLOR" in environ,
    )


def _choose(environ: Mapping[str, str], variable: str, possible: tuple[str, ...], default: str) -> str:
    value = environ.get(variable, "") or default
    if value not in possible:
        raise VocableError(
            "usage.option", f"{variable} is '{value}', which is not possible.", f"Choose one of {', '.join(possible)}."
        )
    return value


def _speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the locale's characters are UTF-8; an absent locale is taken for a modern one."""
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    return not locale or "utf" in locale.lower()
