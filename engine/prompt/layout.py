"""The layout of a prompt in chunks of 75 slots, with the weights of its pieces and its words in their places.

Called for training and evaluation with a text, and for sampling by `engine.prompt.parse` with each text of a schedule.
The rules are those of AUTOMATIC1111's webui (its prompts and ours mean the same), except that a word carried over to
the next chunk with the tail behind a comma stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.errors import VocableError
from engine.prompt.attention import Piece, parse_attention
from engine.prompt.explicit import mark_words
from engine.prompt.lexicon import Lexicon as Lexicon  # part of this module's face: a layout needs a lexicon
from engine.prompt.lexicon import WordIds as WordIds
from engine.prompt.tokenizer import PromptTokenizer
from engine.recipe import Emphasis

SLOTS = 75
"""Tokens and vectors in a chunk, between its start and its end token."""
CHUNK = SLOTS + 2

COMMA_BACKTRACK = 20
"""A full chunk is cut behind its last comma when that leaves at most this many slots of it unused."""

PLACEHOLDER = 0
"""The id that stands where vectors go; its own row of the table is never seen."""


@dataclass(frozen=True)
class Place:
    """Where a word's vectors go in a chunk."""

    word: str
    offset: int
    """Position of the first vector, 1 to 75: the chunk's start token is at 0."""
    vectors: int


@dataclass(frozen=True)
class Chunk:
    """One pass of the text encoder: start token, up to 75 slots, end token, padding."""

    ids: tuple[int, ...]
    """77 of them."""
    places: tuple[Place, ...]
    weights: tuple[float, ...] = (1.0,) * CHUNK
    """77 factors of the encoder's output; 1 for start, end and padding."""
    used: int = 0
    """Slots taken, 0 to 75."""


def lay_out(text: str, lexicon: Lexicon, *, emphasis: Emphasis = "Original") -> tuple[Chunk, ...]:
    """Lay a text out in chunks; there is always at least one.

    Attention, `BREAK` and `embedding:name` are understood, what changes in the course of sampling is not; an explicit
    word that does not exist is left out.

    Raises:
        VocableError: `embedding.too_long` when a word of more than 75 vectors stands in the text.
    """
    marked = mark_words(text, lexicon, emphasis)
    return lay_out_marked(marked.text, marked.words, lexicon, emphasis)


def lay_out_marked(text: str, marks: Mapping[str, WordIds], lexicon: Lexicon, emphasis: Emphasis) -> tuple[Chunk, ...]:
    """`lay_out` of a text in which single characters stand for explicit words."""
    layout = _Layout(lexicon.tokenizer)
    sections = ((Piece(text, 1.0),),) if emphasis == "None" else parse_attention(text)
    for number, section in enumerate(sections):
        if number:
            layout.close()
        for piece in section:
            weight = 1.0 if emphasis == "Ignore" else piece.weight
            for item in _find_items(piece.text, marks, lexicon):
                layout.add(item, weight)
    return layout.finish()


def _find_items(text: str, marks: Mapping[str, WordIds], lexicon: Lexicon) -> Iterator[int | WordIds]:
    for part in re.split(f"([{''.join(marks)}])", text) if marks else [text]:
        if part in marks:
            yield marks[part]
        else:
            yield from lexicon.find_words(lexicon.tokenizer.ids(part))


class _Layout:
    """Fills chunk after chunk; one for each text."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.tokenizer = tokenizer
        self.done: list[Chunk] = []
        self.slots: list[int] = []
        self.weights: list[float] = []
        self.places: list[Place] = []
        self.comma = -1

    def add(self, item: int | WordIds, weight: float) -> None:
        if item == self.tokenizer.comma_id:
            self.comma = len(self.slots)
        elif len(self.slots) == SLOTS and self.comma >= 0 and SLOTS - self.comma <= COMMA_BACKTRACK:
            self._carry_tail(self.comma + 1)
        if len(self.slots) == SLOTS:
            self.close()
        if isinstance(item, WordIds):
            self._add_word(item, weight)
        else:
            self.slots.append(item)
            self.weights.append(weight)

    def close(self) -> None:
        """End the chunk, even an empty one."""
        used = len(self.slots)
        padding = SLOTS - used
        ids = (self.tokenizer.start_id, *self.slots, self.tokenizer.end_id, *[self.tokenizer.pad_id] * padding)
        weights = (1.0, *self.weights, 1.0, *[1.0] * padding)
        self.done.append(Chunk(ids, tuple(self.places), weights, used))
        self.slots, self.weights, self.places, self.comma = [], [], [], -1

    def finish(self) -> tuple[Chunk, ...]:
        if self.slots or not self.done:
            self.close()
        return tuple(self.done)

    def _add_word(self, word: WordIds, weight: float) -> None:
        if word.vectors > SLOTS:
            raise VocableError(
                "embedding.too_long",
                f"The word '{word.name}' has {word.vectors} vectors, but a prompt's chunk holds {SLOTS}.",
                "Use a word of fewer vectors.",
            )
        if len(self.slots) + word.vectors > SLOTS:
            self.close()
        self.places.append(Place(word.name, len(self.slots) + 1, word.vectors))
        self.slots += [PLACEHOLDER] * word.vectors
        self.weights += [weight] * word.vectors

    def _carry_tail(self, cut: int) -> None:
        """Close the chunk at slot `cut` and begin the next one with what stood behind it."""
        slots, weights = self.slots[cut:], self.weights[cut:]
        places = [Place(place.word, place.offset - cut, place.vectors) for place in self.places if place.offset > cut]
        self.slots, self.weights = self.slots[:cut], self.weights[:cut]
        self.places = [place for place in self.places if place.offset <= cut]
        self.close()
        self.slots, self.weights, self.places = slots, weights, places
