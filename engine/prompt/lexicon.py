"""The words that prompts may use, indexed so that finding one costs the same among ten as among ten thousand.

Built for each request by training, sampling and the token counter. A word is found in token ids, not in the text, so
its name may hold blanks and any case; `embedding:name` is looked up by the name itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engine.prompt.tokenizer import PromptTokenizer

_SUFFIX = re.compile(r"\.(?:safetensors|pt|bin|png|webp)(?!\w)", re.IGNORECASE)
"""What other programs let people write behind the name: the file's suffix."""
_GOES_ON = re.compile(r"[.-]?\w")
"""Text behind a name that makes it part of a longer one."""


@dataclass(frozen=True)
class WordIds:
    """A word as a prompt's token ids show it."""

    name: str
    ids: tuple[int, ...]
    vectors: int
    """Slots that the word takes in a chunk."""


class Lexicon:
    """Words by token ids and by name.

    Args:
        words: name and number of vectors of each; of equal names, or names of equal ids, the first counts.
    """

    def __init__(self, tokenizer: PromptTokenizer, words: Iterable[tuple[str, int]]) -> None:
        self.tokenizer = tokenizer
        self._by_ids: dict[tuple[int, ...], WordIds] = {}
        self._by_name: dict[str, WordIds] = {}
        self._by_folded: dict[str, WordIds] = {}
        lengths: dict[int, set[int]] = {}
        for name, vectors in words:
            word = WordIds(name, tokenizer.name_ids(name), vectors)
            if word.ids:
                self._by_ids.setdefault(word.ids, word)
                lengths.setdefault(word.ids[0], set()).add(len(word.ids))
            self._by_name.setdefault(name, word)
            self._by_folded.setdefault(_fold(name), word)
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._longest_name = max(map(len, self._by_name), default=0)

    def find_words(self, ids: Sequence[int]) -> Iterator[int | WordIds]:
        """Yield ids with the words found in them: at each position the longest that matches."""
        position = 0
        while position < len(ids):
            word = self._match(ids, position)
            yield ids[position] if word is None else word
            position += 1 if word is None else len(word.ids)

    def find_name(self, name: str) -> WordIds | None:
        """The word of this name, with or without a file's suffix; an equal spelling goes before one in other case."""
        text = " ".join(name.split())
        for candidate in (text, _SUFFIX.sub("", text)):
            word = self._by_name.get(candidate) or self._by_folded.get(_fold(candidate))
            if word is not None:
                return word
        return None

    def read_name(self, text: str, start: int) -> tuple[WordIds, int] | None:
        """The word with the longest name that stands in `text` from `start` on, and where it ends.

        `foo` does not stand in `foobar`, `foo_bar`, `foo-2` or `foo.2`, which may be words that are not there.
        """
        for end in range(min(len(text), start + self._longest_name), start, -1):
            name = text[start:end]
            word = None if name[-1].isspace() else self._by_name.get(name) or self._by_folded.get(_fold(name))
            if word is not None:
                suffix = _SUFFIX.match(text, end)
                end = suffix.end() if suffix else end
                if not _GOES_ON.match(text, end):
                    return word, end
        return None

    def _match(self, ids: Sequence[int], position: int) -> WordIds | None:
        for length in self._lengths.get(ids[position], ()):
            word = self._by_ids.get(tuple(ids[position : position + length]))
            if word is not None:
                return word
        return None


def _fold(name: str) -> str:
    return name.casefold()
