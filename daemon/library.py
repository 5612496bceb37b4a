"""A library: what the files of one watched folder are, and why one is not what it was meant to be.

Created by the service, one for words and one for hypernetworks; `daemon.tables.Kind` says what tells them apart. One
task follows the folder, has new content read (`daemon.examine`), and makes the table of what is known. Whatever grows
with the number of files is done in threads, so that ten thousand of them do not hold the service up. The invariant: no
file can hide another that is good.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic

from daemon.examine import RETRY_S, Due, Entry, Examiner
from daemon.inspector.facts import F
from daemon.inspector.inspector import Inspector
from daemon.tables import Kind, Table, Target, View
from daemon.waiting import wait_at_most
from daemon.watch import FolderWatch, Stamp, Timing
from engine.names import fold_name
from engine.text import escape

_log = logging.getLogger(__name__)

_TELL_S = 0.25
_TELL_COSTS = 20
"""While many files are read, news is told at this interval, or so many times what making the table took."""

_SETTLE_FILES = 500
"""After so many more or fewer files the garbage collector is told; see `_settle_memory`."""

_CHECK_S = RETRY_S
"""Time between looks at the canonical copies, which anybody may delete."""


class Library(Generic[F]):
    """The files of one folder. Every method is called on the event loop.

    Args:
        kind: what the files are meant to be.
        folder: sub-folders count too.
        cache: the workspace's cache folder.
        inspector: reads foreign bytes; closed by whoever made it.
        on_change: called after `table` or `usable()` changed.
        timing: waits of the watch.
        polling: see FolderWatch.
    """

    def __init__(
        self,
        kind: Kind[F],
        *,
        folder: Path,
        cache: Path,
        inspector: Inspector,
        on_change: Callable[[], None],
        timing: Timing | None = None,
        polling: bool | None = None,
    ) -> None:
        self._kind = kind
        self._folder = folder
        self._examiner = Examiner(kind, cache, inspector)
        self._on_change = on_change
        self._watch = FolderWatch(folder, self._notice, timing=timing, polling=polling)
        self._target: Target | None = None
        self._entries: dict[Path, Entry[F]] = {}
        self._table = Table(None)
        self._is_stale = False
        self._tell_at = 0.0
        self._settled = 0
        self._dirty = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the folder, making it when it is missing. Files are told as they are read; `rescan` waits."""
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

    def look_soon(self) -> None:
        """Look at the folder now instead of at the next regular time."""
        self._watch.look_soon()

    def fit(self, target: Target) -> None:
        """Compare the files with another model; the table follows soon, after `rescan` for certain."""
        if target != self._target:
            self._target = target
            self._is_stale = True
            self._dirty.set()

    @property
    def target(self) -> Target | None:
        """The model that files are compared with."""
        return self._target

    @property
    def table(self) -> Table:
        """Every file that is what it was meant to be, or was meant to be it. Replaced as a whole, never changed."""
        return self._table

    def named(self, name: str) -> list[View]:
        """What there is of this name, without regard to case, or was meant to be."""
        folded = fold_name(name)
        return [view for view in self._table.views if fold_name(view["name"]) == folded]

    def files(self, name: str) -> list[Path]:
        """The files of what `named` tells, the one that has the name first."""
        folded = fold_name(name)
        usable = {view["path"] for view in self._table.views if view["usable"]}
        found = [
            (not any(view["path"] in usable for view in views), entry.found.rank, path)
            for path, entry in self._entries.items()
            if (views := [view for view in entry.found.views if fold_name(view["name"]) == folded])
        ]
        return [path for _, _, path in sorted(found)]

    def holds_several(self, path: Path) -> bool:
        """Whether a file of this library holds more than one thing."""
        return path in self._entries and len(self._entries[path].found.views) > 1

    def usable(self) -> list[dict[str, Any]]:
        """What the worker is told: each readable thing that has its name, for any model; it knows which one it has."""
        return self._table.wire

    def health(self) -> dict[str, Any]:
        """How the folder is watched; see FolderWatch.health."""
        return {"folder": escape(str(self._folder), 5000), **self._watch.health()}

    def _notice(self, files: Mapping[Path, Stamp]) -> None:
        self._dirty.set()

    async def _follow(self) -> None:
        checked = time.monotonic()
        while True:
            await wait_at_most(self._dirty, self._next_try_in())
            try:
                async with self._lock:
                    if time.monotonic() - checked > _CHECK_S:
                        await self._drop_lost_copies()
                        await asyncio.to_thread(self._examiner.prune, list(self._entries.values()))
                        checked = time.monotonic()
                    await self._refresh()
            except Exception:
                _log.exception("reading %s/ failed", self._folder.name)
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
            entries = await self._examiner.examine(due)
            self._entries.update(entries)
            self._is_stale = True
            due = due[len(entries) :]
            if self._dirty.is_set():
                return True
        await self._publish()
        return self._dirty.is_set()

    def _plan(self, files: Mapping[Path, Stamp]) -> tuple[dict[Path, Entry[F]], list[Due]]:
        """Find out which entries still hold and which files are to be read, newest first. Runs in a thread."""
        now = time.monotonic()
        kept: dict[Path, Entry[F]] = {}
        due: list[Due] = []
        for path, stamp in files.items():
            if not self._kind.is_meant(path.name):
                continue
            known = self._entries.get(path)
            if known is not None:
                kept[path] = known
            is_current = known is not None and known.stamp == stamp
            if known is None or not is_current or now >= known.retry_at:
                due.append(Due(path, stamp, known.tries if known is not None and is_current else 0))
        if len(kept) != len(self._entries):
            self._is_stale = True
        due.sort(key=lambda file: file.stamp.ctime_ns, reverse=True)
        return kept, due

    async def _drop_lost_copies(self) -> None:
        """Forget what lost its canonical copy, so that it is read again."""

        def find_lost() -> list[Path]:
            return [path for path, entry in self._entries.items() if self._examiner.lacks(entry)]

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
        table = self._kind.tabulate(found, self._folder, target, self._examiner.canonical)
        before = self._table
        return table, (before.json, before.wire, before.target) != (table.json, table.wire, table.target)
