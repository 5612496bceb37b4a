"""The library: which words the embeddings folder holds, and why a file there is none.

Created by the service; one task of its own follows the folder, has new content inspected, one file at a time, and
keeps canonical copies for the worker in `cache/embeddings/`. The invariant: a file's entry always comes from its
whole content, and no file can hide another that is good.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.inspector.intake import take_in
from daemon.inspector.judge import Judgement, judge
from daemon.inspector.verdicts import Verdict, VerdictCache
from daemon.protocol.service import WordView
from daemon.watch import FolderWatch, Stamp, Timing
from daemon.words import SUFFIXES, Table, Word, describe, tabulate
from engine.errors import VocableError
from engine.names import sanitize_name
from engine.text import escape

_log = logging.getLogger(__name__)

_PREVIEW = ".preview"
"""`NAME.preview.png` shows the word NAME to other programs and is no word itself."""

_RETRIES_S = (1.0, 2.0, 4.0, 8.0)
"""When a file that could not be read is tried again although nothing says that it changed."""

_INCOMPLETE = "embedding.unreadable"
"""May be a file whose end is still to come; after some tries it is what it is."""

_TRANSIENT = frozenset({"file.busy", "file.unreadable", "inspector.start", "disk.full", "disk.write"})
"""Faults of the machine at that moment; they are tried again for ever, at last once a minute."""

_NO_NAME = VocableError(
    "embedding.name",
    "The file's name holds nothing that could name a word.",
    "Rename the file: letters, digits, blanks and . _ - are possible.",
)

_TELL_S = 0.25
"""While many files are read, news is told no more often than this."""

_CHECK_S = 60.0
"""Time between looks at the canonical copies, which anybody may delete."""


@dataclass(frozen=True)
class _Entry:
    """What is known of one file, and as of when."""

    stamp: Stamp
    word: Word
    tries: int
    """How often this stamp was read."""
    retry_at: float
    """Monotonic time of the next try; infinite when there is none."""


class Library:
    """The words of one folder. Every method is called on the event loop.

    Args:
        folder: the embeddings folder; sub-folders count too.
        cache: the workspace's cache folder.
        width: length of a token vector of the model that words are for; 0 while none is known.
        on_change: called after `words()` or `usable()` changed.
        timing: waits of the watch.
        polling: see FolderWatch.
        inspect: has bytes judged; tests put faulty inspectors here.
    """

    def __init__(
        self,
        *,
        folder: Path,
        cache: Path,
        width: Callable[[], int],
        on_change: Callable[[], None],
        timing: Timing | None = None,
        polling: bool | None = None,
        inspect: Callable[[bytes, str], Awaitable[Judgement]] = judge,
    ) -> None:
        self._folder = folder
        self._verdicts = VerdictCache(cache / "embeddings")
        self._width = width
        self._on_change = on_change
        self._inspect = inspect
        self._watch = FolderWatch(folder, self._notice, timing=timing, polling=polling)
        self._entries: dict[Path, _Entry] = {}
        self._lost: dict[str, Verdict] = {}
        self._table: Table | None = None
        self._dirty = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the folder, making it when it is missing. Words appear as they are read; `rescan` waits."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
        await self._watch.start()
        self._dirty.set()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End the following; an inspection at hand is broken off."""
        await self._watch.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def rescan(self) -> None:
        """Look now. On return `words()` tells of every file as it was when this was called."""
        await self._watch.rescan()
        async with self._lock:
            while await self._refresh():
                pass

    def words(self) -> list[WordView]:
        """Every file that is a word or was meant to be one, by name without regard to case; texts are escaped."""
        return self._tabulate().views

    def usable(self) -> list[dict[str, str]]:
        """The wire's `words`: each readable word that no other hides, of any width; the worker knows its model's."""
        return self._tabulate().words

    def health(self) -> dict[str, Any]:
        """How the folder is watched; see FolderWatch.health."""
        return {"folder": escape(str(self._folder), 5000), **self._watch.health()}

    def _notice(self, files: Mapping[Path, Stamp]) -> None:
        self._dirty.set()

    async def _follow(self) -> None:
        checked = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), self._next_try_in())
            try:
                async with self._lock:
                    if time.monotonic() - checked > _CHECK_S:
                        await self._drop_lost_copies()
                        checked = time.monotonic()
                    while await self._refresh():
                        pass
            except Exception:
                _log.exception("reading the embeddings folder failed")
                await asyncio.sleep(1)

    def _next_try_in(self) -> float:
        due = min((entry.retry_at for entry in self._entries.values()), default=float("inf"))
        return min(_CHECK_S, max(0.01, due - time.monotonic()))

    async def _refresh(self) -> bool:
        """Bring the entries up to date with the watch's table; True when that changed meanwhile and there is more."""
        self._dirty.clear()
        files = {path: stamp for path, stamp in self._watch.files.items() if _may_be_word(path)}
        self._entries = {path: entry for path, entry in self._entries.items() if path in files}
        self._publish()
        told = time.monotonic()
        for path, stamp in files.items():
            known = self._entries.get(path)
            if known is not None and known.stamp == stamp and time.monotonic() < known.retry_at:
                continue
            tries = known.tries if known is not None and known.stamp == stamp else 0
            self._entries[path] = await self._examine(path, stamp, tries)
            if self._dirty.is_set():
                return True
            if time.monotonic() - told > _TELL_S:
                self._publish()
                told = time.monotonic()
        self._publish()
        return False

    async def _examine(self, path: Path, stamp: Stamp, tries: int) -> _Entry:
        sha256, name = "", sanitize_name(path.stem)
        try:
            content = await asyncio.to_thread(take_in, path)
            sha256 = content.sha256
            verdict = await self._judge(name or "unnamed", sha256, content.data)
            if verdict.readable and not name:
                verdict = _as_verdict(_NO_NAME)
        except VocableError as error:
            verdict = _as_verdict(error)
        retry_at = time.monotonic() + _retry_in_s(verdict.code, tries)
        return _Entry(stamp, Word(sha256, verdict, describe(path, sha256, verdict)), tries + 1, retry_at)

    async def _judge(self, name: str, sha256: str, data: bytes) -> Verdict:
        """Find out what a content is, each content once."""
        if sha256 in self._lost:
            return self._lost[sha256]
        verdict = await asyncio.to_thread(self._verdicts.find, sha256, name)
        if verdict is not None:
            return verdict
        try:
            judgement = await self._inspect(data, name)
        except VocableError as error:
            if error.code == "inspector.lost":
                _log.warning("a file with hash %s was given up: %s", sha256[:12], error.title)
                self._lost[sha256] = _as_verdict(error)  # for this life only: the machine may have been at fault
            raise
        await asyncio.to_thread(self._verdicts.keep, sha256, name, judgement.verdict, judgement.canonical)
        return judgement.verdict

    async def _drop_lost_copies(self) -> None:
        """Forget words whose canonical copy was deleted, so that they are read again."""

        def lost() -> list[Path]:
            return [
                path
                for path, entry in self._entries.items()
                if entry.word.verdict.readable and not self._verdicts.canonical(entry.word.sha256).is_file()
            ]

        for path in await asyncio.to_thread(lost):
            self._entries[path] = replace(self._entries[path], retry_at=0.0)

    def _publish(self) -> None:
        before, self._table = self._table, None
        after = self._tabulate()
        if before is None or (before.views, before.words) != (after.views, after.words):
            self._on_change()

    def _tabulate(self) -> Table:
        width = self._width()
        if self._table is None or self._table.width != width:
            found = {path: entry.word for path, entry in self._entries.items()}
            self._table = tabulate(found, self._folder, width, self._verdicts.canonical)
        return self._table


def _may_be_word(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.stem.lower().endswith(_PREVIEW)


def _retry_in_s(code: str, tries: int) -> float:
    if code not in _TRANSIENT and code != _INCOMPLETE:
        return float("inf")
    if tries < len(_RETRIES_S):
        return _RETRIES_S[tries]
    return _CHECK_S if code in _TRANSIENT else float("inf")


def _as_verdict(error: VocableError) -> Verdict:
    return Verdict(code=error.code, title=error.title, hint=error.hint)
