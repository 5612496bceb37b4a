"""What the inspector said, by content: `cache/KIND/SHA256.json`, beside it one canonical safetensors for each thing.

Used by the libraries. Everything here may be deleted or torn at any time: a canonical file is called by the SHA-256 of
its own content and compared with it when it is found, and what does not hold is found out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic

from daemon.inspector.facts import F, read_facts
from engine.files import write_atomically

VERSION = 3
"""Counts up whenever the readers of the engine accept or refuse other files than before, or see more."""

STEM = "ThisFilesOwnName"
"""The name under which the inspector reads a file, so that a verdict holds for its content under every name."""


@dataclass(frozen=True)
class Verdict(Generic[F]):
    """What a file holds: words or a hypernetwork, or the error of reading it. Foreign text in it is not yet escaped."""

    flavour: str = ""
    contents: tuple[F, ...] = ()
    """At least one for a readable file."""
    code: str = ""
    """Code of the error; empty for a readable file."""
    title: str = ""
    hint: str = ""

    @property
    def readable(self) -> bool:
        return not self.code

    def named(self, name: str) -> Verdict[F]:
        """The verdict in words that name what the file holds."""
        if STEM not in self.title + self.hint:
            return self
        return replace(self, title=self.title.replace(STEM, name), hint=self.hint.replace(STEM, name))


class VerdictCache(Generic[F]):
    """Verdicts of one kind on disk. Methods block for a disk access or two; call them in a thread."""

    def __init__(self, folder: Path, facts: type[F]) -> None:
        self._folder = folder
        self._facts = facts

    def canonical(self, sha256: str) -> Path:
        """Where the canonical file of this content lies."""
        return self._folder / f"{sha256}.safetensors"

    def find(self, sha256: str) -> Verdict[F] | None:
        """Return what is known of a content; None when nothing is, or when a canonical file is lost or spoilt."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            values = json.loads(self._record(sha256).read_bytes())
            if values.pop("version") == VERSION:
                verdict = self._parse(values)
                if all(self._holds(thing.canonical) for thing in verdict.contents):
                    return verdict
        return None

    def keep(self, sha256: str, verdict: Verdict[F], canonical: Sequence[bytes]) -> None:
        """Write a verdict down, the canonical files first. Raises VocableError `disk.full` or `disk.write`."""
        for thing, data in zip(verdict.contents, canonical, strict=True):
            write_atomically(self.canonical(thing.canonical), data, durable=False)
        record = {"version": VERSION, **asdict(verdict)}
        write_atomically(self._record(sha256), json.dumps(record).encode(), durable=False)

    def lacks(self, verdict: Verdict[F]) -> bool:
        """Say whether a canonical file of a verdict that was found earlier is gone."""
        return not all(self.canonical(thing.canonical).is_file() for thing in verdict.contents)

    def _holds(self, sha256: str) -> bool:
        with self.canonical(sha256).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def _record(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"

    def _parse(self, values: dict[str, Any]) -> Verdict[F]:
        contents = tuple(read_facts(self._facts, thing) for thing in values.pop("contents"))
        return Verdict(contents=contents, **values)
