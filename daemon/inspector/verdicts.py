"""What the inspector said, by content: `cache/embeddings/SHA256.json`, beside it one canonical safetensors per word.

Used by the library. Everything here may be deleted or torn at any time: a canonical file is called by the SHA-256 of
its own content and compared with it when it is found, and what does not hold is found out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.files import write_atomically

VERSION = 2
"""Counts up whenever the readers of `engine.embedding` accept or refuse other files than before, or see more."""

STEM = "ThisFilesOwnName"
"""The name under which the inspector reads a file, so that a verdict holds for its content under every name."""


@dataclass(frozen=True)
class WordFacts:
    """One readable word. Foreign text in it is not yet escaped."""

    name: str
    """Lawful name that its key gives it; empty for a word that is called like its file."""
    trigger: str
    vectors: int
    width: int
    """For two text encoders the sum."""
    split: int
    """Columns of the first of two encoders, else 0."""
    family: str
    step: int
    model: str
    model_hash: str
    canonical: str
    """SHA-256 of the canonical file, 64 hex digits."""


@dataclass(frozen=True)
class Verdict:
    """What a file holds: words, or the error of reading it. Foreign text in it is not yet escaped."""

    flavour: str = ""
    words: tuple[WordFacts, ...] = ()
    code: str = ""
    """Code of the error; empty for a readable file."""
    title: str = ""
    hint: str = ""

    @property
    def readable(self) -> bool:
        return not self.code

    def named(self, name: str) -> Verdict:
        """The verdict in words that name the file's word."""
        if STEM not in self.title + self.hint:
            return self
        return replace(self, title=self.title.replace(STEM, name), hint=self.hint.replace(STEM, name))


class VerdictCache:
    """Verdicts on disk. Methods block for a disk access or two; call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def canonical(self, sha256: str) -> Path:
        """Where the canonical file of this content lies."""
        return self._folder / f"{sha256}.safetensors"

    def find(self, sha256: str) -> Verdict | None:
        """Return what is known of a content; None when nothing is, or when a canonical file is lost or spoilt."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            values = json.loads(self._record(sha256).read_bytes())
            if values.pop("version") == VERSION:
                verdict = _parse(values)
                if all(self._holds(word.canonical) for word in verdict.words):
                    return verdict
        return None

    def keep(self, sha256: str, verdict: Verdict, canonical: Sequence[bytes]) -> None:
        """Write a verdict down, the canonical files first. Raises VocableError `disk.full` or `disk.write`."""
        for word, data in zip(verdict.words, canonical, strict=True):
            write_atomically(self.canonical(word.canonical), data, durable=False)
        record = {"version": VERSION, **asdict(verdict)}
        write_atomically(self._record(sha256), json.dumps(record).encode(), durable=False)

    def lacks(self, verdict: Verdict) -> bool:
        """Say whether a canonical file of a verdict that was found earlier is gone."""
        return not all(self.canonical(word.canonical).is_file() for word in verdict.words)

    def _holds(self, sha256: str) -> bool:
        return hashlib.sha256(self.canonical(sha256).read_bytes()).hexdigest() == sha256

    def _record(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"


def _parse(values: dict[str, Any]) -> Verdict:
    return Verdict(**{**values, "words": tuple(WordFacts(**word) for word in values["words"])})
