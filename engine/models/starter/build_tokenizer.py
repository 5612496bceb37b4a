"""Trains the CLIP-style tokenizer of the starter model on its captions. Called by `build.py`; no torch of its own.

Byte-level BPE with `</w>`, lower case, single digits: any text tokenises, unknown words by their letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77

_SPLIT = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
_PROMPT_WORDS = (
    "a an the of in on at by with and or no not my one two style photo picture painting drawing rendering rendition "
    "cropped close up good bad small big cute nice cool weird large clean dirty bright dark depiction illustration "
    "sketch face head hair eyes ears shirt wearing happy cartoon character person"
)
_WORD_REPEATS = 40


def train_tokenizer(captions: Iterable[str], size: int) -> CLIPTokenizer:
    """A tokenizer of at most `size` tokens: bytes, bytes that end a word, merges as learned, start and end."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_SPLIT, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = _byte_alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator([*captions, *([_PROMPT_WORDS] * _WORD_REPEATS)], trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = merges[: size - 2 - 2 * len(alphabet)]
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and its configuration, and the two files that older tools read instead."""
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")


def _byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes, printable bytes first, as CLIP's vocabulary begins."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(0x100 + offset) for offset in range(len(others)))]
