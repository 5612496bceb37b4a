"""Whose turn it is: the run that the worker has, and the ways for a run to come to it and leave it.

Used by commands, reports and queue, which change it under the queue's lock. The invariant: at most one run has the
worker, and a run's state is saved and told whenever it changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from daemon.keeper import Keeper
from daemon.ledger import Ledger
from daemon.logs import bind_run
from daemon.protocol.runs import ErrorInfo
from daemon.protocol.states import RunCommand, RunState
from daemon.runs import Run, leave_device

_log = logging.getLogger(__name__)


class Turns:
    """The run at the worker."""

    def __init__(self, ledger: Ledger, keeper: Keeper, clock: Callable[[], float]) -> None:
        self.current: Run | None = None
        """The run that the worker has, or had when it was lost."""
        self.is_sent = False
        """Whether the present worker has it."""
        self.has_left = asyncio.Event()
        """Set when the worker has no run any more."""
        self._ledger = ledger
        self._keeper = keeper
        self._clock = clock

    def next(self) -> Run | None:
        """The run that should have the worker."""
        return self.current or self._ledger.runs.next_waiting()

    def has(self, run: Run) -> bool:
        return run is self.current and self.is_sent

    async def give(self, run: Run) -> None:
        """Count the run as the worker's from now on."""
        self.hold(run)
        run.view.state = "running"
        run.view.started_at = run.view.started_at or self._clock()
        await self._ledger.keep(run)

    def hold(self, run: Run) -> None:
        self.current, self.is_sent = run, True
        self.has_left.clear()

    def lose_worker(self) -> bool:
        """Note that the worker is gone; True when it had the current run, which is still to be sent to the next."""
        had, self.is_sent = self.is_sent, False
        self.has_left.set()
        return had

    async def ask(self, run: Run, command: RunCommand) -> None:
        """Have the worker pause or stop the run, between two steps or as soon as it gets it."""
        run.view.asked = command
        await self._ledger.keep(run)
        if self.has(run):
            self._keeper.send({"do": command, "run": run.id})

    async def leave(self, run: Run, state: RunState, error: ErrorInfo | None = None) -> None:
        """Take a run off the worker, or out of the queue, into `state`."""
        run.view.state, run.view.error, run.outcome = state, error, None
        run.view.ended_at = None if state == "paused" else self._clock()
        await self._free(run)
        bind_run(_log, run.id).info("%s at step %d%s", state, run.view.step, f": {error.title}" if error else "")

    async def rest(self, run: Run, error: ErrorInfo) -> None:
        """Pause a run for what `error` says, until that is over; what was asked of it is still to be done."""
        run.view.state, run.view.error = "paused", error
        await self._free(run, asked=run.view.asked)
        bind_run(_log, run.id).warning("rests at step %d: %s", run.view.step, error.title)

    async def requeue(self, run: Run, *, asked: str = "") -> None:
        """Put a run at the head of the queue; `asked` is what the worker shall do with it, if not train it on."""
        run.position = self._ledger.runs.position_at_head()
        run.view.state, run.view.error, run.view.ended_at = "queued", None, None
        await self._free(run, asked=asked)

    async def _free(self, run: Run, *, asked: str = "") -> None:
        leave_device(run.view, asked=asked)
        if run is self.current:
            self.current, self.is_sent = None, False
            self.has_left.set()
        await self._ledger.keep(run)
