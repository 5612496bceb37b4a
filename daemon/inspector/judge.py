"""Makes a verdict and canonical files of what the inspector says of a file. Called by the library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.inspector.frames import Message
from daemon.inspector.inspector import Inspector, lost
from daemon.inspector.verdicts import Verdict, WordFacts
from engine.errors import VocableError


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    canonical: Sequence[bytes]
    """Each readable word as our own safetensors file, in the order of the verdict's words."""


async def judge(inspector: Inspector, data: bytes) -> Judgement:
    """Have one file read.

    Raises:
        VocableError: `inspector.lost` when the process that read it crashed, took too long or made no sense: nothing
            is known of the file but that; `inspector.start` when there was no process to be had.
    """
    try:
        reply, canonical = await inspector.ask({"do": "read"}, [data])
    except VocableError as error:
        if error.code.startswith("inspector."):
            raise
        return Judgement(Verdict(code=error.code, title=error.title, hint=error.hint), ())
    try:
        return _parse(reply, canonical)
    except (KeyError, TypeError, ValueError) as error:
        raise lost(f"answered what makes no sense ({type(error).__name__})") from None


def _parse(reply: Message, canonical: Sequence[bytes]) -> Judgement:
    words = [
        WordFacts(**_checked(word), canonical=hashlib.sha256(data).hexdigest())
        for word, data in zip(reply["words"], canonical, strict=True)
    ]
    if not words:
        raise ValueError("a readable file without a word")
    return Judgement(Verdict(flavour=str(reply["flavour"]), words=tuple(words)), canonical)


def _checked(word: Message) -> Message:
    kinds = {kind.name: str if kind.type == "str" else int for kind in _FIELDS}
    if word.keys() != kinds.keys() or not all(type(word[name]) is kind for name, kind in kinds.items()):
        raise ValueError("a word with other fields")
    return word


_FIELDS = [field for field in WordFacts.__dataclass_fields__.values() if field.name != "canonical"]
