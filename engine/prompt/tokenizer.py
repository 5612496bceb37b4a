"""The tokenizer of a model: CLIP's byte-pair encoding, read from the files of a Stable Diffusion folder.

Called by everything that reads prompts; needs the `tokenizers` library but no torch. No vocabulary is ever enlarged:
words are found in token ids (`engine.prompt.lexicon`), and their names are tokenised like any text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from engine.errors import VocableError

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_NAMES_KEPT = 1 << 16
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
        self.comma_id = tokenizer.token_to_id("," + _WORD_END)
        """None when the vocabulary has no comma."""
        self.name_ids = lru_cache(maxsize=_NAMES_KEPT)(self._name_ids)
        """Token ids of a word's name; kept, since a library of words is looked up again for each prompt."""

    def ids(self, text: str) -> list[int]:
        """Token ids of a text in lower case, without start and end tokens, however many they are."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def is_ordinary(self, ids: Sequence[int]) -> bool:
        """Whether a name of these ids is one word of the vocabulary, which prompts hold without meaning the name."""
        return len(ids) == 1 and str(self._tokenizer.id_to_token(ids[0])).endswith(_WORD_END)

    def _name_ids(self, name: str) -> tuple[int, ...]:
        return tuple(self.ids(name))


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


def _read_vocabulary(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise _unreadable(folder, f"{name} is missing (and so is tokenizer.json)")
    vocabulary, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(
        BPE(vocabulary, merges, unk_token=_END, continuing_subword_prefix="", end_of_word_suffix=_WORD_END)
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
