"""Makes a verdict and canonical files of what the inspector says of a file. Called by the libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from daemon.inspector.facts import F, read_facts
from daemon.inspector.frames import Message
from daemon.inspector.inspector import Inspector, lost
from daemon.inspector.verdicts import Verdict
from engine.errors import VocableError


@dataclass(frozen=True)
class Judgement(Generic[F]):
    verdict: Verdict[F]
    canonical: Sequence[bytes]
    """Each readable thing as our own safetensors file, in the order of the verdict's contents."""


async def judge(inspector: Inspector, question: str, facts: type[F], data: bytes) -> Judgement[F]:
    """Have one file read.

    Args:
        question: the operation that reads files of the kind wanted.
        facts: what it tells of each thing in one.

    Raises:
        VocableError: `inspector.lost` when the process that read it crashed, took too long or made no sense: nothing
            is known of the file but that; `inspector.start` when there was no process to be had.
    """
    try:
        reply, canonical = await inspector.ask({"do": question}, [data])
    except VocableError as error:
        if error.code.startswith("inspector."):
            raise
        return Judgement(Verdict(code=error.code, title=error.title, hint=error.hint), ())
    try:
        return _parse(reply, canonical, facts)
    except (KeyError, TypeError, ValueError) as error:
        raise lost(f"answered what makes no sense ({type(error).__name__})") from None


def _parse(reply: Message, canonical: Sequence[bytes], facts: type[F]) -> Judgement[F]:
    contents = [
        read_facts(facts, {**thing, "canonical": hashlib.sha256(data).hexdigest()})
        for thing, data in zip(reply["contents"], canonical, strict=True)
    ]
    if not contents:
        raise ValueError("a readable file with nothing in it")
    return Judgement(Verdict(str(reply["flavour"]), tuple(contents)), canonical)
