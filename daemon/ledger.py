"""The runs as the history has them, and the telling of every change. Used by the queue and read by the API.

The invariant: a change of a run's state is in the history before anybody is told of it. When the history cannot be
written the service says so, goes on, and tries again with the next regular save.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable

from daemon.events import Hub
from daemon.history import History
from daemon.protocol.runs import LossPoint, RunView
from daemon.runs import Run, RunTable
from engine.errors import VocableError
from engine.text import escape

SAVE_INTERVAL_S = 1.0
"""Progress and losses go into the history this often."""

THIN_INTERVAL_S = 3600.0
"""The losses of runs that ended long ago are thinned this often."""


class Ledger:
    """All runs, and what is wrong with the service."""

    def __init__(self, history: History, hub: Hub) -> None:
        self.runs = RunTable()
        self.history = history
        self._hub = hub
        self._problems: dict[str, str] = {}
        self._unsaved: dict[str, Run] = {}
        self._keeping: Counter[str] = Counter()
        """Runs on their way into the history, and how often."""
        self._refusal: VocableError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, *, now: float) -> None:
        """Read the history. One that cannot be used leaves the service without runs, and says why."""
        try:
            self.runs = RunTable(await self.history.open(now=now))
        except VocableError as error:
            self._refusal = VocableError("service.degraded", f"No run can be changed: {error.title}", error.hint)
            self.set_problem("history", error.title)
            return
        self.set_problem("history.damaged", self.history.notice)
        self._tasks = [asyncio.create_task(work) for work in (self._save_regularly(), self._thin_regularly())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._save_unsaved()
        await self.history.close()

    def check_writable(self) -> None:
        """Raises VocableError `service.degraded` when no run can be changed."""
        if self._refusal:
            raise self._refusal

    async def keep(self, *runs: Run) -> None:
        """Save states and losses of runs, all or none, then tell everybody."""
        saved = [run.snapshot() for run in runs]
        self._keeping.update(run.id for run in runs)
        for run in runs:
            self._unsaved.pop(run.id, None)
        try:
            if not await self.try_to(self.history.save(runs)):
                self._unsaved |= {run.id: run for run in runs}
        finally:
            self._keeping.subtract(run.id for run in runs)
            self._keeping = +self._keeping
        for run, view in zip(runs, saved, strict=True):
            self._show(run, view)

    def note(self, run: Run) -> None:
        """Tell of progress, and save it with the next regular save."""
        self._unsaved[run.id] = run
        if not self._keeping[run.id]:  # else it would tell of a state that is on its way to the history
            run.shown = run.snapshot()
            self._hub.gauge("progress", run.shown, key=run.id)

    async def losses(self, run: Run, points: int) -> list[LossPoint]:
        """The run's losses up to now; see History.losses."""
        if run.losses:
            await self.try_to(self.history.save([run]))
        return await self.history.losses(run.id, points)

    def announce(self, run: Run) -> None:
        """Tell of a run as it is, which is in the history."""
        self._show(run, run.snapshot())

    def announce_removal(self, run: Run) -> None:
        run.shown = run.snapshot()
        self._hub.fact("run.removed", {"id": run.id}, key=run.id)

    async def try_to(self, write: Awaitable[None]) -> bool:
        """Write to the history; a failure is shown as a problem until the next write succeeds."""
        try:
            await write
        except VocableError as error:
            self.set_problem("history", error.title)
            return False
        self.set_problem("history", "")
        return True

    @property
    def problem(self) -> str:
        """What is wrong with the service, for people; empty when it is well."""
        return escape(" ".join(self._problems.values()))

    def has_problem(self, source: str) -> bool:
        return source in self._problems

    def set_problem(self, source: str, text: str) -> None:
        """Note what is wrong with a part of the service, or with empty `text` that it is well again."""
        if text == self._problems.get(source, ""):
            return
        self._problems.pop(source, None)
        if text:
            self._problems[source] = text
        self._hub.fact("problem", {"problem": self.problem})

    def _show(self, run: Run, view: RunView) -> None:
        run.shown = view
        self._hub.fact("run", view, key=run.id)

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self._save_unsaved()

    async def _thin_regularly(self) -> None:
        while True:
            await self.try_to(self.history.thin())
            await asyncio.sleep(THIN_INTERVAL_S)

    async def _save_unsaved(self) -> None:
        runs, self._unsaved = list(self._unsaved.values()), {}
        if runs and not await self.try_to(self.history.save(runs)):
            self._unsaved = {run.id: run for run in runs} | self._unsaved
