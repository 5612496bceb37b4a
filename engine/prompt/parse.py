"""A whole prompt: its parts, what each says at each step, the words it uses. No torch; worker and token counter.

The order of operations is that of AUTOMATIC1111's webui: comments, tags, `AND`, schedules, attention, tokens, chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.prompt.layout import Chunk, Lexicon, lay_out
from engine.recipe import Emphasis


@dataclass(frozen=True)
class Entry:
    """What a part says up to a step."""

    until: int
    """Last step, counted from 1, at which this holds."""
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Part:
    """One side of `AND`."""

    weight: float
    entries: tuple[Entry, ...]
    """In the order of their steps; the last one's is the last step."""


@dataclass(frozen=True)
class Tag:
    """`<kind:argument:argument>`, which is no part of the text."""

    kind: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class ParsedPrompt:
    parts: tuple[Part, ...]
    """At least one."""
    tags: tuple[Tag, ...]
    words: tuple[str, ...]
    """Words that it uses at any step, each once."""
    unknown: tuple[str, ...]
    """Explicit words that do not exist."""


def parse_prompt(
    text: str, lexicon: Lexicon, *, steps: int, emphasis: Emphasis = "Original", negative: bool = False
) -> ParsedPrompt:
    """Read a prompt for so many sampling steps."""
    chunks = lay_out(text, lexicon, emphasis=emphasis)
    words = tuple(dict.fromkeys(place.word for chunk in chunks for place in chunk.places))
    return ParsedPrompt((Part(1.0, (Entry(steps, chunks),)),), (), words, ())


def entry_at(part: Part, step: int, *, compat: str = "") -> Entry:
    """The entry that holds at a step, counted from 1.

    Args:
        compat: `webui` counts the calls of the model from 0, so that every switch comes one step later.
    """
    current = step - 1 if compat == "webui" else step
    return next((entry for entry in part.entries if entry.until >= current), part.entries[-1])
