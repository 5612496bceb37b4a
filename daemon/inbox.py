"""The inbox: a recipe dropped there is queued and moved to done/, or moved to refused/ with the reason beside it.

Attended by the watched folders, on the event loop; what touches the disk runs in threads. The invariant: a recipe
leaves the inbox only when its run is in the history or its reason is on the disk, and is queued once, whatever is
killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from daemon.drops import (
    RETRY_S,
    Drop,
    Enqueue,
    Tell,
    describe_problem,
    describe_queued,
    describe_refusal,
    may_pass,
    read_drop,
    resolve_folders,
    write_reason,
)
from daemon.paths import Workspace
from daemon.runs import Run
from daemon.watch import Stamp, stamp_of
from engine.dataset.folder import natural_key
from engine.errors import VocableError
from engine.files import make_folder, sync_folder, write_error
from engine.text import escape

_log = logging.getLogger(__name__)

_SUFFIX = ".toml"
_REASON = ".reason.txt"
_MAX_NAME = 200
"""Bytes of the longest name that is given to a file, which leaves room for those of temporaries."""

_STUCK_S = 10.0
"""Time between looks at an inbox from which nothing can be moved."""

_MAX_SHOWN = 3
"""So many recipes are named in a problem."""


@dataclass(frozen=True)
class _Delay:
    """A recipe that could not be taken for now."""

    stamp: Stamp
    tries: int
    retry_at: float
    """Monotonic time."""
    problem: str


class Inbox:
    """Takes the recipes of one folder.

    Args:
        enqueue: checks a recipe like a request and queues it.
        tell: publishes what became of one.
        set_problem: shows what keeps recipes from being taken, or with an empty text that nothing does.
    """

    def __init__(self, workspace: Workspace, enqueue: Enqueue, tell: Tell, set_problem: Callable[[str], None]) -> None:
        self._root = workspace.root
        self._folder = workspace.inbox
        self._done = workspace.inbox / "done"
        self._refused = workspace.inbox / "refused"
        self._enqueue = enqueue
        self._tell = tell
        self._set_problem = set_problem
        self._delays: dict[Path, _Delay] = {}
        self._queued: dict[tuple[int | str, ...], Run] = {}
        """Runs of recipes that could not be moved yet, by content and file; a change of the file's mode changes
        neither."""

    async def attend(self, files: Mapping[Path, Stamp]) -> float:
        """Take every recipe of the table that is due; returns after how many seconds to do so again at the latest."""
        recipes = {path: stamp for path, stamp in files.items() if path.suffix.lower() == _SUFFIX}
        self._delays = {path: delay for path, delay in self._delays.items() if delay.stamp == recipes.get(path)}
        fault = await asyncio.to_thread(self._find_fault) if recipes else ""
        if fault:
            self._set_problem(fault)
            return _STUCK_S
        for path in sorted(recipes, key=lambda path: natural_key(path.name)):
            delay = self._delays.get(path)
            if delay is None or time.monotonic() >= delay.retry_at:
                await self._take(path, recipes[path])
        problems = [delay.problem for delay in self._delays.values() if delay.problem]
        more = f" So do {len(problems) - _MAX_SHOWN} more." if len(problems) > _MAX_SHOWN else ""
        self._set_problem(" ".join(problems[:_MAX_SHOWN]) + more)
        next_at = min((delay.retry_at for delay in self._delays.values()), default=float("inf"))
        return max(0.01, next_at - time.monotonic())

    def _find_fault(self) -> str:
        """Say why nothing could be moved out of the inbox; then nothing is queued either. Runs in a thread."""
        for folder in (self._done, self._refused):
            try:
                make_folder(folder)
            except VocableError as error:
                return f"No recipe is taken from {self._folder}: {error.title} {error.hint}"
        for folder in (self._folder, self._done, self._refused):
            if not os.access(folder, os.W_OK | os.X_OK):
                hint = "Check its permissions, and how its disk is mounted."
                return f"No recipe is taken from {self._folder}: {folder} cannot be written to. {hint}"
        return ""

    async def _take(self, path: Path, stamp: Stamp) -> None:
        if await asyncio.to_thread(_stamp, path) != stamp:
            return  # gone or changed again: the watch tells of it
        try:
            drop = await asyncio.to_thread(read_drop, path)
            run = await self._queue(drop)
            await asyncio.to_thread(self._file_away, path, drop.stamp)
        except VocableError as error:
            if may_pass(error, self._tries(path)):
                self._delay(path, stamp, error)
            else:
                await self._refuse(path, stamp, error)
        else:
            self._queued.pop(_identity(drop), None)
            self._delays.pop(path, None)
            self._tell(describe_queued(path, run))

    async def _queue(self, drop: Drop) -> Run:
        """Queue a recipe, once: the key is made of its content and of the file, whose ctime a move changes."""
        known = self._queued.get(_identity(drop))
        if known:
            return known
        stamp = drop.stamp
        key = f"inbox:{drop.sha256}:{stamp.device}:{stamp.inode}:{stamp.mtime_ns}:{stamp.ctime_ns}"
        run = await self._enqueue(resolve_folders(drop.values, self._root, self._root), key)
        self._queued[_identity(drop)] = run
        return run

    async def _refuse(self, path: Path, stamp: Stamp, error: VocableError) -> None:
        try:
            await asyncio.to_thread(self._move_to_refused, path, stamp, error)
        except VocableError as failure:
            self._delay(path, stamp, failure)
        else:
            self._delays.pop(path, None)
            self._tell(describe_refusal(path, error))

    def _tries(self, path: Path) -> int:
        """How often the recipe was tried, this time included."""
        delay = self._delays.get(path)
        return delay.tries + 1 if delay else 1

    def _delay(self, path: Path, stamp: Stamp, error: VocableError) -> None:
        tries = self._tries(path)
        wait_s = RETRY_S[min(tries, len(RETRY_S)) - 1]
        self._delays[path] = _Delay(stamp, tries, time.monotonic() + wait_s, describe_problem(path, error))

    def _file_away(self, path: Path, stamp: Stamp) -> None:
        """Move a recipe that is queued to done/; an older refusal of it holds no longer. Runs in a thread."""
        _move(path, stamp, self._done / _free_name(self._done, path.name))
        if not os.path.lexists(self._refused / path.name):
            with contextlib.suppress(OSError):
                (self._refused / f"{path.name}{_REASON}").unlink()
        _log.info("the recipe %s is queued", escape(path.name))

    def _move_to_refused(self, path: Path, stamp: Stamp, error: VocableError) -> None:
        """Move a recipe to refused/, its reason first, so that none lies there without one. Runs in a thread."""
        name = _free_name(self._refused, path.name)
        advice = (
            "Correct this and move the file back into inbox/.\n"
            "Names mean what lies in datasets/, templates/ and models/ of the workspace, and a path that begins with\n"
            f"./ begins there: {escape(str(self._root), 5000)}"
        )
        write_reason(self._refused / f"{name}{_REASON}", path.name, error, advice)
        _move(path, stamp, self._refused / name)
        _log.warning("the recipe %s is refused: %s", escape(path.name), escape(str(error)))


def _identity(drop: Drop) -> tuple[int | str, ...]:
    return drop.sha256, drop.stamp.device, drop.stamp.inode, drop.stamp.mtime_ns


def _stamp(path: Path) -> Stamp | None:
    try:
        return stamp_of(path.lstat())
    except OSError:
        return None


def _move(path: Path, stamp: Stamp, target: Path) -> None:
    """Move the file that has this stamp; another one that took its place stays, to be looked at by itself.

    Raises:
        VocableError: `file.busy` for another one, `disk.full` or `disk.write` when it cannot be moved.
    """
    if _stamp(path) != stamp:
        raise VocableError("file.busy", "The file was changed meanwhile.", "It is read again by itself.")
    try:
        os.rename(path, target)
        sync_folder(target.parent)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def _free_name(folder: Path, name: str) -> str:
    """The name, with a number before its suffix where it is taken, short enough for a reason beside it."""
    stem, suffix = os.path.splitext(name)
    for number in count(1):
        tail = f"-{number}{suffix}" if number > 1 else suffix
        while len(os.fsencode(f"{stem}{tail}{_REASON}")) > _MAX_NAME:
            stem = stem[:-1]
        if not os.path.lexists(folder / f"{stem}{tail}"):
            return f"{stem}{tail}"
    raise AssertionError("there is always a next number")
