"""Runs that a full disk put to rest: looks now and then whether there is room again, and lets them go on.

Part of the queue. Such a run is paused with the error `disk.full`, so it is known again after a restart of the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from daemon.ledger import Ledger
from daemon.protocol.runs import ErrorInfo
from daemon.runs import Run, add_warning, is_resting
from daemon.turns import Turns

LOOK_EVERY_S = 15.0
MAX_WAIT_S = 600.0
"""A run that meets a full disk again without having come further waits twice as long each time, at most so long."""

ROOM = 64 * 1024 * 1024
"""Bytes that must be free before a run goes on: for checkpoints, previews and logs of some time."""


class Room:
    """Puts runs to rest and wakes them.

    Args:
        results: the other folder that runs of a kind write to.
        wake: called, on the event loop, with the runs that go on, in the order of the queue.
    """

    def __init__(
        self,
        ledger: Ledger,
        turns: Turns,
        results: Callable[[str], Path],
        wake: Callable[[list[Run]], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._turns = turns
        self._results = results
        self._wake = wake
        self._waits: dict[str, tuple[int, float, float]] = {}
        """By run: the step at which it met the full disk, how long it waits, and until when on the loop's clock."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._show()
        self._task = asyncio.create_task(self._look_regularly())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def rest(self, run: Run, error: ErrorInfo) -> None:
        """Take a run that found the disk full off the worker; a pause that was asked for stays a pause."""
        if run.view.asked == "pause":
            add_warning(run.view, error.code, error.title, error.hint)
            await self._turns.leave(run, "paused")
            return
        step, wait_s, _ = self._waits.get(run.id, (-1, 0.0, 0.0))
        wait_s = min(2 * wait_s, MAX_WAIT_S) if step == run.view.step else 0.0
        wait_s = max(wait_s, LOOK_EVERY_S)
        self._waits[run.id] = (run.view.step, wait_s, asyncio.get_running_loop().time() + wait_s)
        await self._turns.rest(run, error)
        self._show()

    async def look(self) -> None:
        """Wake the runs whose time has come and whose folders have room."""
        now = asyncio.get_running_loop().time()
        due = [run for run in self._resting() if now >= self._waits.get(run.id, (0, 0.0, 0.0))[2]]
        woken = []
        for run in due:
            folders = (Path(run.view.folder), self._results(run.view.kind))
            if all([await asyncio.to_thread(has_room, folder, ROOM) for folder in folders]):
                woken.append(run)
        if woken:
            await self._wake([run for run in woken if is_resting(run.view)])
        self._show()

    async def _look_regularly(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    def _resting(self) -> list[Run]:
        runs = [run for run in self._ledger.runs.unfinished() if is_resting(run.view)]
        return sorted(runs, key=lambda run: run.position)

    def _show(self) -> None:
        resting = self._resting()
        names = ", ".join(f"'{run.view.name}'" for run in resting)
        text = f"The disk is full: {names} waits at its newest checkpoint and goes on when there is room."
        self._ledger.set_problem("room", text if resting else "")


def has_room(folder: Path, size: int) -> bool:
    """Whether `size` more bytes can be written to `folder`; a quota is known only to those who try."""
    while not folder.is_dir():
        folder = folder.parent
    probe = folder / f".room.{secrets.token_hex(4)}.tmp"
    try:
        if shutil.disk_usage(folder).free < size:
            return False
        handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, size)
        finally:
            os.close(handle)
    except OSError as error:
        return error.errno in (errno.EOPNOTSUPP, errno.EINVAL)  # a file system that can only be tried by writing
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return True
