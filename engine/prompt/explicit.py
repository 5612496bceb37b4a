"""Explicit words: `embedding:name` and `<embedding:name>`, which name a word instead of being found by chance.

Called before any other grammar sees the text, since they hold colons. Each is replaced by one character of a private
use area that the text itself does not hold, so that brackets and schedules carry it along like a letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.prompt.attention import DECIMAL
from engine.prompt.lexicon import Lexicon, WordIds
from engine.recipe import Emphasis

_FORM = re.compile(r"<embedding:(?P<inner>[^>]+)>|(?<!\w)embedding:(?=\w)", re.IGNORECASE)
_UNKNOWN = re.compile(r"\w+(?:[.-]\w+)*")
"""How far a name goes that nobody knows."""
_WEIGHTED = re.compile(rf"(?P<name>[^:]*):\s*(?P<weight>{DECIMAL})\s*")


@dataclass(frozen=True)
class Marked:
    """A text with its explicit words made opaque."""

    text: str
    words: dict[str, WordIds]
    """What each of the replacing characters stands for."""
    unknown: tuple[str, ...]
    """Names that were asked for and do not exist, each once; the text no longer holds them."""


def mark_words(text: str, lexicon: Lexicon, emphasis: Emphasis = "Original") -> Marked:
    """Replace every explicit word, and drop those that do not exist. `<embedding:name:1.2>` gives it a weight too."""
    marks = _unused_characters(text)
    words: dict[str, WordIds] = {}
    known: dict[str, str] = {}
    unknown: dict[str, None] = {}
    parts: list[str] = []
    position = 0
    while form := _FORM.search(text, position):
        parts.append(text[position : form.start()])
        word, name, weight, position = _read_form(text, form, lexicon)
        if word is None:
            unknown[name] = None
            continue
        if word.name not in known:
            known[word.name] = next(marks)
            words[known[word.name]] = word
        mark = known[word.name]
        parts.append(f"({mark}:{weight})" if weight and emphasis != "None" else mark)
    parts.append(text[position:])
    return Marked("".join(parts), words, tuple(unknown))


def _read_form(text: str, form: re.Match[str], lexicon: Lexicon) -> tuple[WordIds | None, str, str, int]:
    """The word, the name as it is written, a weight or nothing, and the position behind them."""
    inner = form["inner"]
    if inner is None:
        found = lexicon.read_name(text, form.end())
        if found:
            return found[0], found[0].name, "", found[1]
        stranger = _UNKNOWN.match(text, form.end())
        end = stranger.end() if stranger else form.end()
        return None, text[form.end() : end], "", end
    weighted = _WEIGHTED.fullmatch(inner)
    name, weight = (weighted["name"], weighted["weight"]) if weighted else (inner, "")
    return lexicon.find_name(name), inner.strip(), weight, form.end()


def _unused_characters(text: str) -> Iterator[str]:
    taken = set(text)
    return (chr(code) for code in range(0xF0000, 0x110000) if chr(code) not in taken)
