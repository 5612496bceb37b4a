"""What the inspector said, by content: `cache/KIND/SHA256.json`, beside it one canonical safetensors for each thing.

Used by the libraries. Everything here may be deleted or torn at any time: a canonical file is called by the SHA-256 of
its own content and compared with it when it is found, and what does not hold is found out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic

from daemon.inspector.facts import F, read_facts
from engine.files import write_atomically

VERSION = 3
"""Counts up whenever the readers of the engine accept or refuse other files than before, or see more."""

STEM = "ThisFilesOwnName"
"""The name under which the inspector reads a file, so that a verdict holds for its content under every name."""


SPARE_FILES = 2000
SPARE_BYTES = 1 << 30
"""Of what belongs to no file any more so much is kept, the newest: files go away for a while and come back."""

REST_S = 3600.0
"""What was in use so lately stays in any case, since a worker may just be reading it."""


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
        self._spare_since: dict[str, float] = {}

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

    def prune(self, used: Iterable[tuple[str, Verdict[F]]], *, now_s: float) -> None:
        """Delete what belongs to no file that is there, beyond what is kept to spare.

        Args:
            used: SHA-256 and verdict of each file that is there.
            now_s: seconds of a clock that never goes back.
        """
        names = set()
        for sha256, verdict in used:
            names |= {self._record(sha256).name, *(self.canonical(thing.canonical).name for thing in verdict.contents)}
        spare = self._list_but(names)
        self._spare_since = {name: self._spare_since.get(name, now_s) for name in spare}
        held_bytes = 0
        for number, (name, status) in enumerate(sorted(spare.items(), key=lambda item: -item[1].st_mtime_ns), 1):
            held_bytes += status.st_size
            is_over = number > SPARE_FILES or held_bytes > SPARE_BYTES
            if is_over and now_s - self._spare_since[name] >= REST_S:
                with contextlib.suppress(OSError):
                    (self._folder / name).unlink()

    def _list_but(self, names: Collection[str]) -> dict[str, os.stat_result]:
        """The files of the cache but these."""
        found: dict[str, os.stat_result] = {}
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name not in names and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        found[entry.name] = entry.stat(follow_symlinks=False)
        return found

    def _holds(self, sha256: str) -> bool:
        with self.canonical(sha256).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def _record(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"

    def _parse(self, values: dict[str, Any]) -> Verdict[F]:
        contents = tuple(read_facts(self._facts, thing) for thing in values.pop("contents"))
        return Verdict(contents=contents, **values)
