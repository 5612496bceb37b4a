"""A whole prompt: its parts, what each says at each step, the words it uses. No torch; worker and token counter.

The order of operations is that of AUTOMATIC1111's webui (comments, tags, `AND`, schedules, attention,
tokens, chunks), with explicit words read before `AND`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.prompt.composition import split_composition
from engine.prompt.editing import schedule_text
from engine.prompt.explicit import mark_words
from engine.prompt.layout import Chunk, Lexicon, lay_out_marked
from engine.prompt.tags import Tag, strip_comments, take_tags
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
    """Read a prompt for sampling in so many steps; whatever fits no grammar is text.

    Args:
        steps: calls of the model, at least 1; fractions in `[a:b:0.5]` are of these.
        negative: the prompt says what is unwanted; `AND` and weights at its end are text there.

    Raises:
        VocableError: `embedding.too_long` when a word of more than 75 vectors stands in the prompt.
    """
    plain, tags = take_tags(strip_comments(text))
    marked = mark_words(plain, lexicon, emphasis)
    sides = [(marked.text, 1.0)] if negative else split_composition(marked.text)
    schedules = [schedule_text(side, steps) for side, _ in sides]
    texts = dict.fromkeys(text for schedule in schedules for _, text in schedule)
    laid_out = {text: lay_out_marked(text, marked.words, lexicon, emphasis) for text in texts}
    parts = tuple(
        Part(weight, tuple(Entry(until, laid_out[text]) for until, text in schedule))
        for (_, weight), schedule in zip(sides, schedules, strict=True)
    )
    words = dict.fromkeys(place.word for chunks in laid_out.values() for chunk in chunks for place in chunk.places)
    return ParsedPrompt(parts, tags, tuple(words), marked.unknown)


def entry_at(part: Part, step: int, *, compat: str = "") -> Entry:
    """The entry that holds at a step, counted from 1.

    Args:
        compat: `webui` counts the calls of the model from 0, so that every switch comes one step later.
    """
    current = step - 1 if compat == "webui" else step
    return next((entry for entry in part.entries if entry.until >= current), part.entries[-1])
