"""Prompts as token ids: the tokenizer of a model, and the layout of a prompt in chunks of 75 with its words found.

Called by training, sampling and everything that counts tokens; needs the `tokenizers` library but no torch. A word is
found in the token ids, not in the text, so its name may hold blanks, and no vocabulary is ever enlarged. The rules are
those of AUTOMATIC1111's webui (its prompts and ours mean the same), except that a word carried over to the next chunk
with the tail behind a comma stays whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from engine.errors import VocableError

SLOTS = 75
"""Tokens and vectors in a chunk, between its start and its end token."""
CHUNK = SLOTS + 2

COMMA_BACKTRACK = 20
"""A full chunk is cut behind its last comma when that leaves at most this many slots of it unused."""

PLACEHOLDER = 0
"""The id that stands where vectors go; its own row of the table is never seen."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
_PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>"
    r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""How CLIP cuts a text before its byte-pair encoding: words, single digits, runs of other signs."""


class PromptTokenizer:
    """CLIP's byte-pair encoding with the vocabulary of one model."""

    def __init__(self, tokenizer: Tokenizer, *, start_id: int, end_id: int, pad_id: int) -> None:
        self._tokenizer = tokenizer
        self.start_id = start_id
        self.end_id = end_id
        self.pad_id = pad_id
        """Fills a chunk behind its end token: the end token again in SD 1.x, 0 in SD 2.x."""
        self.comma_id = tokenizer.token_to_id(",</w>")
        """None when the vocabulary has no comma."""

    def ids(self, text: str) -> list[int]:
        """Token ids of a text in lower case, without start and end tokens, however many they are."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class WordIds:
    """A word as a prompt's token ids show it."""

    name: str
    ids: tuple[int, ...]
    vectors: int
    """Slots that the word takes in a chunk."""


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


def load_tokenizer(folder: Path) -> PromptTokenizer:
    """Read `tokenizer.json`, or else the `vocab.json` and `merges.txt` of an original Stable Diffusion folder.

    Raises:
        VocableError: `model.unreadable` with the file that is missing or damaged.
    """
    names = {"bos_token": _START, "eos_token": _END, "pad_token": _END}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        names |= {role: text for role, text in _special_tokens(folder / file).items() if role in names}
    try:
        tokenizer = _read_vocabulary(folder)
    except VocableError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise _unreadable(folder, str(error)) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    start_id, end_id, pad_id = (_special_id(folder, tokenizer, role, text) for role, text in names.items())
    return PromptTokenizer(tokenizer, start_id=start_id, end_id=end_id, pad_id=pad_id)


def word_ids(name: str, vectors: int, tokenizer: PromptTokenizer) -> WordIds:
    """Tokenise a word's name as it will be met in prompts."""
    return WordIds(name, tuple(tokenizer.ids(name)), vectors)


def lay_out(text: str, tokenizer: PromptTokenizer, words: Sequence[WordIds]) -> tuple[Chunk, ...]:
    """Lay a prompt out in chunks; there is always at least one.

    At each position the longest word that matches the coming ids is taken, of equal ones the first in `words`.

    Raises:
        VocableError: `embedding.too_long` when a word of more than 75 vectors stands in the prompt.
    """
    layout = _Layout(tokenizer)
    for item in _find_words(tokenizer.ids(text), words):
        layout.add(item)
    return layout.finish()


def _find_words(ids: Sequence[int], words: Sequence[WordIds]) -> Iterator[int | WordIds]:
    by_first: dict[int, list[WordIds]] = {}
    for word in sorted((word for word in words if word.ids), key=lambda word: -len(word.ids)):
        by_first.setdefault(word.ids[0], []).append(word)
    position = 0
    while position < len(ids):
        for word in by_first.get(ids[position], ()):
            if tuple(ids[position : position + len(word.ids)]) == word.ids:
                yield word
                position += len(word.ids)
                break
        else:
            yield ids[position]
            position += 1


class _Layout:
    """Fills chunk after chunk; one for each prompt."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.tokenizer = tokenizer
        self.done: list[Chunk] = []
        self.slots: list[int] = []
        self.places: list[Place] = []
        self.comma = -1

    def add(self, item: int | WordIds) -> None:
        if item == self.tokenizer.comma_id:
            self.comma = len(self.slots)
        elif len(self.slots) == SLOTS and self.comma >= 0 and SLOTS - self.comma <= COMMA_BACKTRACK:
            self._carry_tail(self.comma + 1)
        if len(self.slots) == SLOTS:
            self._close()
        if isinstance(item, WordIds):
            self._add_word(item)
        else:
            self.slots.append(item)

    def finish(self) -> tuple[Chunk, ...]:
        if self.slots or not self.done:
            self._close()
        return tuple(self.done)

    def _add_word(self, word: WordIds) -> None:
        if word.vectors > SLOTS:
            raise VocableError(
                "embedding.too_long",
                f"The word '{word.name}' has {word.vectors} vectors, but a prompt's chunk holds {SLOTS}.",
                "Use a word of fewer vectors.",
            )
        if len(self.slots) + word.vectors > SLOTS:
            self._close()
        self.places.append(Place(word.name, len(self.slots) + 1, word.vectors))
        self.slots += [PLACEHOLDER] * word.vectors

    def _carry_tail(self, cut: int) -> None:
        """Close the chunk at slot `cut` and begin the next one with what stood behind it."""
        tail = self.slots[cut:]
        places = [Place(place.word, place.offset - cut, place.vectors) for place in self.places if place.offset > cut]
        self.slots = self.slots[:cut]
        self.places = [place for place in self.places if place.offset <= cut]
        self._close()
        self.slots, self.places = tail, places

    def _close(self) -> None:
        ids = [self.tokenizer.start_id, *self.slots, self.tokenizer.end_id]
        ids += [self.tokenizer.pad_id] * (CHUNK - len(ids))
        self.done.append(Chunk(tuple(ids), tuple(self.places)))
        self.slots, self.places, self.comma = [], [], -1


def _read_vocabulary(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise _unreadable(folder, f"{name} is missing (and so is tokenizer.json)")
    vocabulary, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(
        BPE(vocabulary, merges, unk_token=_END, continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([_START, _END])
    return tokenizer


def _special_tokens(path: Path) -> dict[str, str]:
    """The special tokens that one of the tokenizer's JSON files names; each is a text, or an object that holds it."""
    if not path.is_file():
        return {}
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        texts = {role: value["content"] if isinstance(value, dict) else value for role, value in values.items()}
    except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise _unreadable(path.parent, f"{path.name} cannot be read ({error})") from error
    return {role: text for role, text in texts.items() if isinstance(text, str)}


def _special_id(folder: Path, tokenizer: Tokenizer, role: str, text: str) -> int:
    token_id: int | None = tokenizer.token_to_id(text)
    if token_id is None:
        raise _unreadable(folder, f"its vocabulary lacks the {role} {text!r}")
    return token_id


def _unreadable(folder: Path, problem: str) -> VocableError:
    title = f"The tokenizer {folder} cannot be used: {problem}."
    return VocableError("model.unreadable", title, "Copy the model again, whole.")
