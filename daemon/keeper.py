"""Keeps the one worker process: starts it, with growing pauses after crashes, and lets it go when it has no work.

Used by the queue, which decides what the worker does. The invariant: at most one worker at a time, and none is
started before the last one, be it of an earlier service, is gone and its end was handled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from daemon.cards import is_card, name_others, wait_for_memory
from daemon.protocol.service import WorkerView
from daemon.worker.footprint import clear_away
from daemon.worker.supervise import WorkerExit
from engine.errors import VocableError
from engine.text import escape

CRASHES = 5
CRASH_WINDOW_S = 600.0
"""So many crashes within this time are a loop."""

RETIRE_TIMEOUT_S = 10.0

KILL_TIMEOUT_S = 10.0
"""The kernel has to end a process that an earlier service left; longer means that it sits in a driver."""

_log = logging.getLogger(__name__)

Message = dict[str, Any]


class WorkerProcess(Protocol):
    """What the keeper needs of `daemon.worker.supervise.Worker`."""

    pid: int | None

    async def start(self, settings: Message) -> None: ...
    def send(self, message: Message) -> None: ...
    async def stop(self, *, timeout_s: float) -> None: ...
    def kill(self) -> None: ...


MakeWorker = Callable[[Callable[[Message], None], Callable[[WorkerExit], None]], WorkerProcess]
"""Makes a worker that is not started yet, from its `on_message` and `on_exit`."""


def backoff_s(crashes: int) -> float:
    """Seconds to wait before the next start, after so many crashes in the window: 1, 2, 4, ... at most 60."""
    return float(min(60, 2 ** (crashes - 1))) if crashes else 0.0


class Keeper:
    """The worker's life.

    Args:
        make_worker: makes the process's supervisor.
        settings: the worker's first message.
        on_message, on_exit: called with what the worker says, and with its end.
        on_change: called when `view` changed.
        on_free: called when what an earlier worker held is free, after `is_present` was true for that alone.
        backoff: pause in seconds after so many crashes in the window.
    """

    def __init__(
        self,
        make_worker: MakeWorker,
        settings: Message,
        *,
        on_message: Callable[[Message], None],
        on_exit: Callable[[WorkerExit], None],
        on_change: Callable[[], None],
        on_free: Callable[[], None],
        backoff: Callable[[int], float] = backoff_s,
    ) -> None:
        self.view = WorkerView()
        self.surrender = ""
        """Why no worker is started any more until somebody asks for another try, for people."""
        self._make_worker = make_worker
        self._settings = settings
        self._on_message = on_message
        self._on_exit = on_exit
        self._on_change = on_change
        self._on_free = on_free
        self._backoff = backoff
        self._worker: WorkerProcess | None = None
        self._crashes: deque[float] = deque()
        self._not_before = 0.0
        self._leaving: asyncio.Task[None] | None = None
        self._clearing: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_present(self) -> bool:
        """Whether there is a worker, or what is left of an earlier one: a process, or memory of its device."""
        return self._worker is not None or self._clearing is not None

    @property
    def is_ready(self) -> bool:
        """Whether the worker takes work."""
        return self._worker is not None and not self._leaving and self.view.state in ("idle", "busy")

    @property
    def is_looping(self) -> bool:
        return len(self._crashes) >= CRASHES

    def pause_left_s(self) -> float:
        """Seconds until a worker may be started."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    def clear_away(self, footprint: Path) -> None:
        """End the worker that an earlier service left, if there is one."""
        self._clearing = asyncio.create_task(self._clear_away(footprint))

    async def close(self) -> None:
        """Wait no longer for what an earlier worker left."""
        for task in filter(None, (self._clearing, self._asking)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def start(self) -> None:
        """Start a worker; it is ready when it says so. A refusal of the system counts as a crash."""
        worker = self._make_worker(self._on_message, self._on_exit)
        self._worker = worker
        self._show(state="starting", note="")
        try:
            await worker.start(self._settings)
        except VocableError as error:
            self._on_exit(WorkerExit("refused", 1, escape(error.title), escape(error.hint)))
            return
        self._show(pid=worker.pid)
        _log.info("worker started (pid %s)", worker.pid)

    def send(self, message: Message) -> None:
        if self._worker is not None:
            self._worker.send(message)

    async def stop(self, *, timeout_s: float) -> None:
        """Have the worker leave; its end is reported by `on_exit` as any other."""
        if self._worker is not None:
            await self._worker.stop(timeout_s=timeout_s)

    def retire(self) -> None:
        """Let a worker without work go, so that the device is free; from now on it takes none."""
        if self._worker and not self._leaving:
            _log.info("there is no work, the worker ends")
            self._leaving = asyncio.create_task(self._worker.stop(timeout_s=RETIRE_TIMEOUT_S))

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()

    def renew(self, settings: Message) -> None:
        """Give new settings to the worker, if there is one, and to every later one."""
        self._settings = settings
        self.send({"do": "settings", **settings})

    def note_ready(self, device: str) -> None:
        self._show(state="idle", device=escape(device, 200))
        if is_card(device):
            self._asking = asyncio.create_task(self._note_others())

    def note_model(self, name: str) -> None:
        self._show(model=escape(name, 200))

    def note_work(self, *, is_busy: bool) -> None:
        if self.is_ready:
            self._show(state="busy" if is_busy else "idle")

    def note_exit(self, end: WorkerExit) -> None:
        """Take the end of the worker into account; must be called for each `on_exit`."""
        if end.kind == "wedged":
            self._show(state="gpu_wedged", model="", note=f"{end.title} {end.hint}")
            _log.error("worker lost: %s", end.title)
            return
        self._worker, self._leaving = None, None
        if self._asking:
            self._asking.cancel()
        if is_card(self.view.device) and not self._clearing:
            self._clearing = asyncio.create_task(self._wait_for_memory())
        self._show(pid=None, state="absent", model="", note="")
        if end.kind == "asked":
            return
        now = asyncio.get_running_loop().time()
        self._crashes.append(now)
        while self._crashes[0] < now - CRASH_WINDOW_S:
            self._crashes.popleft()
        self._not_before = now + self._backoff(len(self._crashes))
        self._show(state="failed", note=end.title)
        _log.error("worker lost (%d in the last minutes): %s", len(self._crashes), end.title)

    def give_up(self, reason: str) -> None:
        """Start no worker until `forgive`."""
        self.surrender = reason

    def forgive(self) -> None:
        """Forget all crashes, since somebody asked for another try."""
        self.surrender = ""
        self._crashes.clear()
        self._not_before = 0.0

    async def _wait_for_memory(self) -> None:
        try:
            await wait_for_memory()
        finally:
            self._clearing = None
        self._on_free()

    async def _note_others(self) -> None:
        note = await name_others(self.view.pid)
        if note and self._worker is not None:
            _log.warning("%s", note)
            self._show(note=note)

    async def _clear_away(self, footprint: Path) -> None:
        try:
            await clear_away(footprint, kill_s=KILL_TIMEOUT_S, on_stuck=self._show_stuck)
        except OSError as error:
            _log.error("whether an earlier worker still lives is not known: %s", error.strerror)
        self._clearing = None
        self._show(pid=None, state="absent", note="")
        self._on_free()

    def _show_stuck(self, pid: int) -> None:
        note = f"The worker of an earlier service (pid {pid}) hangs inside a driver and cannot be killed."
        self._show(pid=pid, state="gpu_wedged", note=f"{note} Restart the machine.")
        _log.error("%s", note)

    def _show(self, **changes: Any) -> None:
        changed = self.view.model_copy(update=changes)
        if changed != self.view:
            self.view = changed
            self._on_change()
