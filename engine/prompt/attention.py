"""Attention: pieces of a prompt with the factors that brackets give them.

Called for each text that is laid out. The grammar is that of AUTOMATIC1111's webui; it has no errors, whatever does not
fit is text. `BREAK` ends a chunk inside brackets too, and what is no number is no weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

DECIMAL = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
"""How a weight is written: signed, with decimals, without an exponent."""

_TOKEN = re.compile(
    rf"""\\(?P<escaped>[()\[\]\\])
    |\\                                   # in front of anything else it only vanishes
    |(?P<open>[(\[])
    |:\s*(?P<weight>{DECIMAL})\s*\)
    |(?P<close>[)\]])
    |[^\\()\[\]:]+
    |:""",
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")
_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_CLOSES = {")": "(", "]": "["}


@dataclass(frozen=True)
class Piece:
    text: str
    weight: float


def parse_attention(text: str) -> tuple[tuple[Piece, ...], ...]:
    """Read a text's brackets: its sections, which `BREAK` parts, each a run of pieces of different weights.

    `(a)` weighs 1.1, `[a]` 1 / 1.1, `(a:1.3)` 1.3; nested factors multiply, an opener that is never closed counts to
    the end of the text, `\\(`, `\\)`, `\\[`, `\\]` and `\\\\` are text.
    """
    fragments: list[str | None] = []  # None is a BREAK
    factors: list[tuple[int, int, float]] = []  # of the fragments from first to before last
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for token in _TOKEN.finditer(text):
        bracket, weight = token["open"], token["weight"]
        if bracket:
            opened[bracket].append(len(fragments))
        elif weight is not None and opened["("]:
            factor = float(weight)
            if math.isinf(factor):  # more digits than a number holds
                fragments.append(token[0][:-1])
                factor = _FACTORS["("]
            factors.append((opened["("].pop(), len(fragments), factor))
        elif token["close"] and opened[_CLOSES[token["close"]]]:
            bracket = _CLOSES[token["close"]]
            factors.append((opened[bracket].pop(), len(fragments), _FACTORS[bracket]))
        elif token["escaped"]:
            fragments.append(token["escaped"])
        elif token[0] != "\\":
            fragments += _split_breaks(token[0])
    factors += [(first, len(fragments), _FACTORS[bracket]) for bracket in "([" for first in opened[bracket]]
    return tuple(_make_sections(fragments, factors))


def _split_breaks(text: str) -> Iterator[str | None]:
    """The parts of a text around each BREAK, without the blanks that surround it."""
    parts = _BREAK.split(text)
    for number, part in enumerate(parts):
        if number:
            yield None
            part = part.lstrip()
        yield part.rstrip() if number < len(parts) - 1 else part


def _make_sections(
    fragments: list[str | None], factors: Iterable[tuple[int, int, float]]
) -> Iterator[tuple[Piece, ...]]:
    weights = [1.0] * len(fragments)
    for first, last, factor in factors:
        weights[first:last] = [weight * factor for weight in weights[first:last]]
    section: list[tuple[str, float]] = []
    for fragment, weight in zip(fragments, weights, strict=True):
        if fragment is None:
            yield _merge(section)
            section = []
        elif fragment:
            section.append((fragment, weight))
    yield _merge(section)


def _merge(fragments: Iterable[tuple[str, float]]) -> tuple[Piece, ...]:
    """Join neighbours of equal weight: a name may reach over brackets that change nothing."""
    runs = groupby(fragments, key=lambda fragment: fragment[1])
    return tuple(Piece("".join(text for text, _ in run), weight) for weight, run in runs)
