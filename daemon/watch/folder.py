"""A watched folder: a table of its settled files that follows the disk.

Created by whoever cares for a folder (the library for embeddings/). Runs on the supervisor's event loop; everything
that touches the disk runs in a thread. The invariant: a file is in the table only once nobody has written to it for a
moment, and whatever was missed is found by the next regular look.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.waiting import wait_at_most
from daemon.watch.hints import Hints, HintsRefused
from daemon.watch.mounts import remote_file_system
from daemon.watch.scan import Listing, Stamp, scan
from engine.text import escape

_log = logging.getLogger(__name__)

_LARGE = 1 << 20
_PAUSE = 4
"""Pause after a hint, in lengths of the last look: a storm of changes takes at most a fifth of one core."""
_POLL = 30
"""Least time between regular looks, in lengths of the last one: a huge tree takes at most a thirtieth of one core."""
_LONGEST_S = 900.0
"""Most time between regular looks, however huge the tree."""


@dataclass(frozen=True)
class Timing:
    """Waits of a watched folder, in seconds."""

    settle_s: float = 0.3
    """A file below 1 MiB is taken when two looks this far apart found the same stamp."""
    large_settle_s: float = 0.8
    """The same for larger files, which are copied with longer gaps."""
    empty_settle_s: float = 10.0
    """The same for empty files: most are about to be written."""
    old_s: float = 5.0
    """A file that was last changed this long ago is taken at first sight."""
    rescan_s: float = 60.0
    """Time between regular looks where the kernel tells of changes."""
    poll_s: float = 1.0
    """Time between looks where it does not, or while the folder is missing."""
    gather_s: float = 0.05
    """After a hint, more are waited for this long."""


@dataclass(frozen=True)
class _Seen:
    """The outcome of one look, compared with what was known."""

    files: dict[Path, Stamp]
    fresh: dict[Path, tuple[Stamp, float]]
    """Files that may still be written to, and since when (monotonic) they look like this."""
    changed: bool
    """Whether `files` is another table than before."""
    entries: int
    """How many files and folders lie in the folder itself, empty folders left out."""
    missing: bool
    faults: dict[Path, str]


class FolderWatch:
    """Watches `root` and everything below it.

    Args:
        root: absolute path; may be missing, come, go and come again.
        on_change: called on the event loop with the table whenever it changed.
        timing: waits.
        polling: look at intervals without asking the kernel for hints; None decides by the kind of file system.
        hints: makes the source of hints; tests put a faulty one here.
        depth: how many levels of folders are looked into, `root` being the first; None for all.
        on_look: called on the event loop after each look.
    """

    def __init__(
        self,
        root: Path,
        on_change: Callable[[Mapping[Path, Stamp]], None],
        *,
        timing: Timing | None = None,
        polling: bool | None = None,
        hints: Callable[[Callable[[], None]], Hints] = Hints,
        depth: int | None = None,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self.root = root
        self.files: dict[Path, Stamp] = {}
        """The table: settled files and everything that is no file, by absolute path."""
        self._on_change = on_change
        self._timing = timing or Timing()
        self._polling = polling
        self._hints = hints(self._hint)
        self._depth = depth
        self._on_look = on_look
        self._entries = 0
        self._fresh: dict[Path, tuple[Stamp, float]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._lock = asyncio.Lock()
        self._armed: tuple[int, int] | None = None
        self._next_arming = 0.0
        self._mode = "polling"
        self._reason = ""
        self._missing = False
        self._faults: dict[Path, str] = {}
        self._look_s = 0.0
        self._restarts = 0
        self._last_scan: float | None = None
        self._last_event: float | None = None

    async def start(self) -> None:
        """Take the first look, then go on by itself. Files that are just being written come later."""
        self._loop = asyncio.get_running_loop()
        await self._look()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End the watching; a look that hangs on a dead file server is not waited for."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=5)
            self._task.cancel()
        await asyncio.to_thread(self._hints.disarm)

    async def rescan(self) -> None:
        """Look now and take every file as it is, settled or not."""
        await self._look(patient=False)

    def look_soon(self) -> None:
        """Take the next regular look now; files that are being written come later, as always."""
        self._wake.set()

    def health(self) -> dict[str, Any]:
        """How the folder is watched, for people: mode, reason, times (seconds since 1970), counts."""
        reason = "the folder is missing" if self._missing else self._reason
        if self._faults:
            folder, fault = next(iter(self._faults.items()))
            reason = f"{folder} cannot be read ({fault})"
        return {
            "mode": self._mode,
            "reason": escape(reason),
            "entries": self._entries,
            "files": len(self.files),
            "waiting": len(self._fresh),
            "last_scan": self._last_scan,
            "last_event": self._last_event,
            "restarts": self._restarts,
            "overflows": self._hints.overflows,
        }

    async def _follow(self) -> None:
        while not self._stopping.is_set():
            hinted = await self._wait()
            if self._stopping.is_set():
                return
            if hinted:
                if await wait_at_most(self._stopping, max(self._timing.gather_s, _PAUSE * self._look_s)):
                    return
                self._wake.clear()
            try:
                await self._look()
            except Exception:
                _log.exception("looking through %s failed", self.root)

    async def _wait(self) -> bool:
        """Wait for a hint or the time of the next look; True for a hint.

        The kernel does not tell when the folder itself is renamed or another one is put in its place: that is looked
        for in between.
        """
        due = time.monotonic() + self._next_look_in()
        while (left_s := due - time.monotonic()) > 0:
            if await wait_at_most(self._wake, min(left_s, self._timing.poll_s)):
                return True
            if self._armed and await asyncio.to_thread(self._identity) != self._armed:
                return False
        return False

    def _identity(self) -> tuple[int, int] | None:
        """Which folder lies at the path now. Runs in a thread."""
        try:
            status = os.stat(self.root)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _next_look_in(self) -> float:
        timing = self._timing
        regular = timing.rescan_s if self._mode == "inotify" and not self._missing else timing.poll_s
        regular = max(regular, min(_POLL * self._look_s, _LONGEST_S))
        now = time.monotonic()
        due = [since + self._settle_s(stamp) - now for stamp, since in self._fresh.values()]
        return max(0.01, min([regular, *due]))

    async def _look(self, *, patient: bool = True) -> None:
        async with self._lock:
            started = time.monotonic()
            seen = await asyncio.to_thread(self._survey, patient)
            self._look_s = time.monotonic() - started
            self._last_scan = time.time()
            self._missing, self._faults, self._fresh = seen.missing, seen.faults, seen.fresh
            self.files, self._entries = seen.files, seen.entries
            if seen.changed:
                self._on_change(self.files)
            self._on_look()

    def _survey(self, patient: bool) -> _Seen:
        """Arm first, look then: what happens in between is hinted at and seen, never neither. Runs in a thread."""
        identity = self._identity()
        try:
            if identity:
                self._tend_hints(identity)
        except OSError:
            identity = None
        if not identity:
            self._armed = None
        return self._compare(scan(self.root, self._depth), time.monotonic(), patient)

    def _tend_hints(self, identity: tuple[int, int]) -> None:
        """Keep the hints coming: from the folder that is there now, by threads that are alive."""
        if self._armed == identity and self._hints.alive():
            return
        now = time.monotonic()
        if self._armed is None and self._mode == "polling" and now < self._next_arming:
            return
        if self._armed == identity:
            self._restarts += 1
            _log.warning("the watch on %s had ended and is started again", self.root)
        self._next_arming = now + self._timing.rescan_s
        self._armed = None
        self._mode, self._reason = "polling", self._reason_to_poll()
        if self._reason:
            return
        try:
            self._hints.arm(self.root, deep=self._depth != 1)
        except HintsRefused as refusal:
            self._reason = str(refusal)
            _log.warning("%s is looked through at intervals: %s", self.root, refusal)
            return
        self._mode, self._armed = "inotify", identity

    def _reason_to_poll(self) -> str:
        if self._polling is not None:
            return "as configured" if self._polling else ""
        kind = remote_file_system(self.root)
        return f"a file system of type {kind} does not tell of changes made elsewhere" if kind else ""

    def _compare(self, listing: Listing, now: float, patient: bool) -> _Seen:
        """Make the next table of a look and the present one, which stay as they are. Runs in a thread."""
        found = listing.files | self._unknown(listing)
        before = self.files
        files: dict[Path, Stamp] = {}
        fresh: dict[Path, tuple[Stamp, float]] = {}
        changed = False
        for path, stamp in found.items():
            known = before.get(path)
            if known == stamp:
                files[path] = stamp
                continue
            seen, since = self._fresh.get(path, (None, now))
            since = since if seen == stamp else now
            if not patient or self._is_settled(stamp, now - since):
                files[path] = stamp
                changed = True
                continue
            fresh[path] = (stamp, since)
            if known is not None:
                files[path] = known
        changed = changed or len(files) != len(before)
        entries = self._count_entries(files) if changed else self._entries
        return _Seen(files, fresh, changed, entries, listing.missing, listing.faults)

    def _count_entries(self, files: Mapping[Path, Stamp]) -> int:
        start = len(self.root.parts)
        return len({path.parts[start] for path in files})

    def _unknown(self, listing: Listing) -> dict[Path, Stamp]:
        """What was below folders that cannot be read just now; it is not taken for removed."""
        return {
            path: stamp
            for path, stamp in self.files.items()
            if any(path.is_relative_to(folder) for folder in listing.faults)
        }

    def _is_settled(self, stamp: Stamp, unchanged_s: float) -> bool:
        """Whether nobody writes to a file any more that was first seen like this `unchanged_s` seconds ago."""
        if stamp.kind != "file":
            return True
        settle_s = self._settle_s(stamp)
        old_s = time.time() - max(stamp.mtime_ns, stamp.ctime_ns) / 1e9
        return old_s >= max(self._timing.old_s, settle_s) or (unchanged_s >= settle_s and unchanged_s > 0)

    def _settle_s(self, stamp: Stamp) -> float:
        if stamp.size == 0:
            return self._timing.empty_settle_s
        return self._timing.settle_s if stamp.size < _LARGE else self._timing.large_settle_s

    def _hint(self) -> None:
        """Called in watchdog's thread."""
        self._last_event = time.time()
        self._loop.call_soon_threadsafe(self._wake.set)
