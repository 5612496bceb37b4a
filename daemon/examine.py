"""Reads the files of a library that came or changed: takes them in, has unknown content inspected, keeps the verdict.

Used by the library, a batch at a time; whatever grows with the number of files is done in threads. The invariant: what
is said of a file comes from its whole content, and no content is inspected twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from daemon.inspector.facts import F
from daemon.inspector.inspector import Inspector
from daemon.inspector.intake import take_in
from daemon.inspector.judge import Judgement, judge
from daemon.inspector.verdicts import Verdict, VerdictCache
from daemon.tables import Found, Kind
from daemon.watch import Stamp
from engine.errors import VocableError

_log = logging.getLogger(__name__)

RETRY_S = 60.0
"""Time between tries to read a file that a fault of the machine keeps from being read, once it lasts."""

_RETRIES_S = (1.0, 2.0, 4.0, 8.0)
"""When a file that could not be read is tried again although nothing says that it changed."""

_TRANSIENT = frozenset({"file.busy", "file.unreadable", "inspector.start", "disk.full", "disk.write"})
"""Faults of the machine at that moment; they are tried again for ever, at last once a minute."""

_BATCH_FILES = 128
_BATCH_BYTES = 32 << 20
"""Files are read so many at a time, or fewer when they are large."""


@dataclass(frozen=True)
class Due:
    """A file that is to be read now."""

    path: Path
    stamp: Stamp
    tries: int
    """How often this stamp was read."""


@dataclass(frozen=True)
class Entry(Generic[F]):
    """What is known of one file, and as of when."""

    stamp: Stamp
    found: Found[F]
    tries: int
    retry_at: float
    """Monotonic time of the next try; infinite when there is none."""


@dataclass(frozen=True)
class _Taken(Generic[F]):
    """A file that was read."""

    due: Due
    sha256: str = ""
    data: bytes = b""
    """Empty when its verdict is known."""
    verdict: Verdict[F] | None = None


class Examiner(Generic[F]):
    """Reads files of one kind.

    Args:
        cache: the workspace's cache folder.
        inspector: reads foreign bytes.
    """

    def __init__(self, kind: Kind[F], cache: Path, inspector: Inspector) -> None:
        self._kind = kind
        self._inspector = inspector
        self._verdicts = VerdictCache(cache / kind.cache, kind.facts)
        self._lost: dict[str, Verdict[F]] = {}

    async def examine(self, due: Sequence[Due]) -> dict[Path, Entry[F]]:
        """Read some of the files that are due, from the first on, and say what they hold."""
        taken = await asyncio.to_thread(self._take_in, due[:_BATCH_FILES])
        unknown = {file.sha256: file.data for file in taken if file.verdict is None}
        judgements = await asyncio.gather(*(self._judge(sha256, data) for sha256, data in unknown.items()))
        judged = dict(zip(unknown, judgements, strict=True))
        return await asyncio.to_thread(self._enter, taken, judged)

    def canonical(self, sha256: str) -> Path:
        """Where the canonical file of this content lies."""
        return self._verdicts.canonical(sha256)

    def lacks(self, entry: Entry[F]) -> bool:
        """Say whether a canonical file of what was found is gone; blocks for a disk access."""
        return self._verdicts.lacks(entry.found.verdict)

    def prune(self, entries: Collection[Entry[F]]) -> None:
        """Forget contents that no entry has any more, but for some of the newest; blocks for a look at the cache."""
        used = {entry.found.sha256: entry.found.verdict for entry in entries}
        self._lost = {sha256: verdict for sha256, verdict in self._lost.items() if sha256 in used}
        self._verdicts.prune(used.items(), now_s=time.monotonic())

    def _take_in(self, batch: Sequence[Due]) -> list[_Taken[F]]:
        """Read files, and look up what is known of their content. Runs in a thread."""
        taken: list[_Taken[F]] = []
        held = 0
        for due in batch:
            try:
                content = take_in(due.path, max_bytes=self._kind.max_bytes)
            except VocableError as error:
                taken.append(_Taken(due, verdict=_as_verdict(error)))
                continue
            verdict = self._lost.get(content.sha256) or self._verdicts.find(content.sha256)
            taken.append(_Taken(due, content.sha256, b"" if verdict else content.data, verdict))
            held += len(taken[-1].data)
            if held > _BATCH_BYTES:
                break
        return taken

    async def _judge(self, sha256: str, data: bytes) -> Judgement[F]:
        """Find out what a content is."""
        try:
            return await judge(self._inspector, self._kind.question, self._kind.facts, data)
        except VocableError as error:
            verdict: Verdict[F] = _as_verdict(error)
            if error.code == "inspector.lost":
                _log.warning("a file with hash %s was given up: %s", sha256[:12], error.title)
                self._lost[sha256] = verdict  # for this life only: the machine may have been at fault
            return Judgement(verdict, ())

    def _enter(self, taken: Sequence[_Taken[F]], judged: Mapping[str, Judgement[F]]) -> dict[Path, Entry[F]]:
        """Write down what was found out, and make entries of it. Runs in a thread."""
        verdicts = {sha256: self._keep(sha256, judgement) for sha256, judgement in judged.items()}
        entries = {}
        for file in taken:
            verdict = verdicts[file.sha256] if file.verdict is None else file.verdict
            retry_at = time.monotonic() + self._retry_in_s(verdict.code, file.due.tries)
            found = self._kind.describe(file.due.path, file.sha256, verdict)
            entries[file.due.path] = Entry(file.due.stamp, found, file.due.tries + 1, retry_at)
        return entries

    def _keep(self, sha256: str, judgement: Judgement[F]) -> Verdict[F]:
        if judgement.verdict.code.startswith("inspector."):
            return judgement.verdict
        try:
            self._verdicts.keep(sha256, judgement.verdict, judgement.canonical)
        except VocableError as error:
            return _as_verdict(error)
        return judgement.verdict

    def _retry_in_s(self, code: str, tries: int) -> float:
        if code not in _TRANSIENT and code != self._kind.incomplete:
            return float("inf")
        if tries < len(_RETRIES_S):
            return _RETRIES_S[tries]
        return RETRY_S if code in _TRANSIENT else float("inf")


def _as_verdict(error: VocableError) -> Verdict[F]:
    return Verdict(code=error.code, title=error.title, hint=error.hint)
