"""The library: which words the embeddings folder holds, and why a file there is none.

Created by the service; one task of its own follows the folder, has new content inspected, and keeps canonical copies
for the worker in `cache/embeddings/`. Files are taken in batches, and whatever grows with their number is done in
threads, so that ten thousand of them do not hold the service up. The invariant: a file's entry always comes from its
whole content, and no file can hide another that is good.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.inspector.inspector import Inspector
from daemon.inspector.intake import take_in
from daemon.inspector.judge import Judgement, judge
from daemon.inspector.verdicts import Verdict, VerdictCache
from daemon.protocol.service import WordView
from daemon.watch import FolderWatch, Stamp, Timing
from daemon.words import SUFFIXES, Found, Table, Target, describe, tabulate
from engine.errors import VocableError
from engine.names import fold_name, sanitize_name
from engine.text import escape

_log = logging.getLogger(__name__)

_PREVIEWS = tuple(f".preview{suffix}" for suffix in SUFFIXES)
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

_BATCH_FILES = 128
_BATCH_BYTES = 32 << 20
"""Files are read so many at a time, or fewer when they are large."""

_TELL_S = 0.25
_TELL_COSTS = 20
"""While many files are read, news is told at this interval, or so many times what making the table took."""

_SETTLE_FILES = 500
"""After so many more or fewer files the garbage collector is told; see `_settle_memory`."""

_CHECK_S = 60.0
"""Time between looks at the canonical copies, which anybody may delete."""


@dataclass(frozen=True)
class _Due:
    """A file that is to be read now."""

    path: Path
    stamp: Stamp
    tries: int
    """How often this stamp was read."""


@dataclass(frozen=True)
class _Taken:
    """A file that was read."""

    due: _Due
    sha256: str = ""
    data: bytes = b""
    """Empty when its verdict is known."""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class _Entry:
    """What is known of one file, and as of when."""

    stamp: Stamp
    found: Found
    tries: int
    retry_at: float
    """Monotonic time of the next try; infinite when there is none."""


class Library:
    """The words of one folder. Every method is called on the event loop.

    Args:
        folder: the embeddings folder; sub-folders count too.
        cache: the workspace's cache folder.
        inspector: reads foreign bytes; closed by whoever made it.
        on_change: called after `words()` or `usable()` changed.
        timing: waits of the watch.
        polling: see FolderWatch.
    """

    def __init__(
        self,
        *,
        folder: Path,
        cache: Path,
        inspector: Inspector,
        on_change: Callable[[], None],
        timing: Timing | None = None,
        polling: bool | None = None,
    ) -> None:
        self._folder = folder
        self._verdicts = VerdictCache(cache / "embeddings")
        self._inspector = inspector
        self._on_change = on_change
        self._watch = FolderWatch(folder, self._notice, timing=timing, polling=polling)
        self._target: Target | None = None
        self._entries: dict[Path, _Entry] = {}
        self._lost: dict[str, Verdict] = {}
        self._table = Table(None)
        self._is_stale = False
        self._tell_at = 0.0
        self._settled = 0
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
        """Look now. On return the table tells of every file as it was when this was called."""
        await self._watch.rescan()
        async with self._lock:
            await self._drop_lost_copies()
            while await self._refresh():
                pass

    def fit(self, target: Target) -> None:
        """Compare the words with another model; the table follows soon, after `rescan` for certain."""
        if target != self._target:
            self._target = target
            self._is_stale = True
            self._dirty.set()

    @property
    def target(self) -> Target | None:
        """The model that words are compared with."""
        return self._target

    @property
    def table(self) -> Table:
        """Every file that is a word or was meant to be one. It is replaced as a whole, never changed."""
        return self._table

    def words(self) -> list[WordView]:
        """By name without regard to case; texts are escaped. Takes its time with thousands: see `table`."""
        return [WordView.model_construct(**view) for view in self._table.views]

    def named(self, name: str) -> list[WordView]:
        """The files that are words of this name, without regard to case, or were meant to be."""
        folded = fold_name(name)
        return [WordView.model_construct(**view) for view in self._table.views if fold_name(view["name"]) == folded]

    def usable(self) -> list[dict[str, Any]]:
        """The wire's `words`: each readable word that has its name, of any width; the worker knows its model's."""
        return self._table.words

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
                    await self._refresh()
            except Exception:
                _log.exception("reading the embeddings folder failed")
                await asyncio.sleep(1)

    def _next_try_in(self) -> float:
        due = min((entry.retry_at for entry in self._entries.values()), default=float("inf"))
        return min(_CHECK_S, max(0.01, due - time.monotonic()))

    async def _refresh(self) -> bool:
        """Bring the entries up to date with the watch's table; True when that changed meanwhile and there is more."""
        self._dirty.clear()
        self._entries, due = await asyncio.to_thread(self._plan, self._watch.files)
        while due:
            if time.monotonic() >= self._tell_at:
                await self._publish()
            count = await self._examine(due[:_BATCH_FILES])
            due = due[count:]
            if self._dirty.is_set():
                return True
        await self._publish()
        return self._dirty.is_set()

    def _plan(self, files: Mapping[Path, Stamp]) -> tuple[dict[Path, _Entry], list[_Due]]:
        """Find out which entries still hold and which files are to be read, newest first. Runs in a thread."""
        now = time.monotonic()
        kept: dict[Path, _Entry] = {}
        due: list[_Due] = []
        for path, stamp in files.items():
            if not _may_be_word(path.name):
                continue
            known = self._entries.get(path)
            if known is not None:
                kept[path] = known
            is_current = known is not None and known.stamp == stamp
            if known is None or not is_current or now >= known.retry_at:
                due.append(_Due(path, stamp, known.tries if known is not None and is_current else 0))
        if len(kept) != len(self._entries):
            self._is_stale = True
        due.sort(key=lambda file: file.stamp.ctime_ns, reverse=True)
        return kept, due

    async def _examine(self, batch: Sequence[_Due]) -> int:
        """Read some of the files of `batch` from its start, and enter what they hold; returns how many they were."""
        taken = await asyncio.to_thread(self._take_in, batch)
        unknown = {file.sha256: file.data for file in taken if file.verdict is None}
        judgements = await asyncio.gather(*(self._judge(sha256, data) for sha256, data in unknown.items()))
        judged = dict(zip(unknown, judgements, strict=True))
        self._entries.update(await asyncio.to_thread(self._enter, taken, judged))
        self._is_stale = True
        return len(taken)

    def _take_in(self, batch: Sequence[_Due]) -> list[_Taken]:
        """Read files, and look up what is known of their content. Runs in a thread."""
        taken: list[_Taken] = []
        held = 0
        for due in batch:
            try:
                content = take_in(due.path)
            except VocableError as error:
                taken.append(_Taken(due, verdict=_as_verdict(error)))
                continue
            verdict = self._lost.get(content.sha256) or self._verdicts.find(content.sha256)
            taken.append(_Taken(due, content.sha256, b"" if verdict else content.data, verdict))
            held += len(taken[-1].data)
            if held > _BATCH_BYTES:
                break
        return taken

    async def _judge(self, sha256: str, data: bytes) -> Judgement:
        """Find out what a content is."""
        try:
            return await judge(self._inspector, data)
        except VocableError as error:
            verdict = _as_verdict(error)
            if error.code == "inspector.lost":
                _log.warning("a file with hash %s was given up: %s", sha256[:12], error.title)
                self._lost[sha256] = verdict  # for this life only: the machine may have been at fault
            return Judgement(verdict, ())

    def _enter(self, taken: Sequence[_Taken], judged: Mapping[str, Judgement]) -> dict[Path, _Entry]:
        """Write down what was found out, and make entries of it. Runs in a thread."""
        verdicts = {sha256: self._keep(sha256, judgement) for sha256, judgement in judged.items()}
        entries = {}
        for file in taken:
            verdict = verdicts[file.sha256] if file.verdict is None else file.verdict
            if not sanitize_name(file.due.path.stem) and any(not word.name for word in verdict.words):
                verdict = _as_verdict(_NO_NAME)
            retry_at = time.monotonic() + _retry_in_s(verdict.code, file.due.tries)
            found = describe(file.due.path, file.sha256, verdict)
            entries[file.due.path] = _Entry(file.due.stamp, found, file.due.tries + 1, retry_at)
        return entries

    def _keep(self, sha256: str, judgement: Judgement) -> Verdict:
        if judgement.verdict.code.startswith("inspector."):
            return judgement.verdict
        try:
            self._verdicts.keep(sha256, judgement.verdict, judgement.canonical)
        except VocableError as error:
            return _as_verdict(error)
        return judgement.verdict

    async def _drop_lost_copies(self) -> None:
        """Forget words whose canonical copy was deleted, so that they are read again."""

        def find_lost() -> list[Path]:
            return [path for path, entry in self._entries.items() if self._verdicts.lacks(entry.found.verdict)]

        for path in await asyncio.to_thread(find_lost):
            self._entries[path] = replace(self._entries[path], retry_at=0.0)

    async def _publish(self) -> None:
        """Make the table of what is known now, and tell when it is another one."""
        if not self._is_stale:
            return
        started = time.monotonic()
        self._is_stale = False
        self._table, is_news = await asyncio.to_thread(self._tabulate, self._target)
        ended = time.monotonic()
        self._tell_at = ended + max(_TELL_S, _TELL_COSTS * (ended - started))
        self._settle_memory()
        if is_news:
            self._on_change()

    def _settle_memory(self) -> None:
        """Tell the garbage collector not to look through the entries again and again: they hold no cycles.

        With ten thousand words each full collection would hold the event loop up for a tenth of a second.
        """
        if abs(len(self._entries) - self._settled) >= _SETTLE_FILES:
            self._settled = len(self._entries)
            gc.freeze()

    def _tabulate(self, target: Target | None) -> tuple[Table, bool]:
        found = {path: entry.found for path, entry in self._entries.items()}
        table = tabulate(found, self._folder, target, self._verdicts.canonical)
        before = self._table
        return table, (before.json, before.words, before.target) != (table.json, table.words, table.target)


def _may_be_word(name: str) -> bool:
    folded = name.lower()
    return folded.endswith(SUFFIXES) and not folded.endswith(_PREVIEWS)


def _retry_in_s(code: str, tries: int) -> float:
    if code not in _TRANSIENT and code != _INCOMPLETE:
        return float("inf")
    if tries < len(_RETRIES_S):
        return _RETRIES_S[tries]
    return _CHECK_S if code in _TRANSIENT else float("inf")


def _as_verdict(error: VocableError) -> Verdict:
    return Verdict(code=error.code, title=error.title, hint=error.hint)
