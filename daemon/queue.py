"""The queue: which run has the worker and what it is told, one thing after the other.

Part of the service. One task takes what the worker says (reports), clients change runs (commands), and after each
change the worker gets what it should have now. The invariant: whatever is killed at any moment, a run that has not
ended goes on from its newest checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from daemon.commands import Commands
from daemon.events import Hub
from daemon.jobs import Job, Jobs
from daemon.keeper import Keeper, MakeWorker, Message, backoff_s
from daemon.ledger import Ledger
from daemon.logs import bind_run
from daemon.paths import Workspace
from daemon.protocol.jobs import JobView
from daemon.protocol.runs import ErrorInfo
from daemon.protocol.service import QueueView
from daemon.remains import sweep
from daemon.removal import Removal
from daemon.reports import Reports
from daemon.room import Room
from daemon.runs import Run, describe_error
from daemon.trash import keep_copy
from daemon.turns import Turns
from daemon.worker.footprint import NAME as FOOTPRINT
from daemon.worker.supervise import WorkerExit
from engine.errors import VocableError
from engine.files import make_folder

_log = logging.getLogger(__name__)


class Queue:
    """Runs one at a time, in order; jobs at once, also beside a run.

    Args:
        worker_settings: the worker's first message.
        known, rescan, on_model: see Reports.
        idle_unload_s: the worker is let go after so long without work.
        backoff: pause in seconds before a start, after so many crashes.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        hub: Hub,
        make_worker: MakeWorker,
        worker_settings: Message,
        *,
        known: Callable[[], Message],
        rescan: Callable[[], Awaitable[None]],
        on_model: Callable[[Message], None],
        idle_unload_s: float,
        backoff: Callable[[int], float] = backoff_s,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._hub = hub
        self._told = QueueView()
        self._idle_unload_s = idle_unload_s
        self._clock = clock
        self._inbox: asyncio.Queue[Message | WorkerExit | Run | Job | None] = asyncio.Queue()
        self._lock = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._may_have_remains = True
        """A process may have been killed in the middle of something since the last look."""
        self.jobs = Jobs(hub)
        self.keeper = Keeper(
            make_worker,
            worker_settings,
            on_message=self._inbox.put_nowait,
            on_exit=self._inbox.put_nowait,
            on_change=self._worker_changed,
            on_free=self._wake,
            backoff=backoff,
        )
        self._turns = Turns(ledger, self.keeper, clock)
        self.commands = Commands(
            workspace, ledger, self._turns, lock=self._lock, work_on=self._wake, try_again=self._try_again, clock=clock
        )
        self.removal = Removal(workspace, ledger, lock=self._lock, check_open=self.commands.check_open)
        self._room = Room(ledger, self._turns, workspace.results, self._wake_runs)
        self.reports = Reports(
            ledger,
            self._turns,
            self.keeper,
            self.jobs,
            self._room,
            trash_for=workspace.trash_for,
            known=known,
            rescan=rescan,
            on_model=on_model,
            on_settled=self._inbox.put_nowait,
        )

    async def start(self) -> None:
        """Take over what the history holds: a run that was under way goes on first."""
        await self._ledger.open(now=self._clock())
        for run in self._ledger.runs.unfinished():
            if run.view.asked == "pause":
                await self._turns.leave(run, "paused")
            elif run.view.state == "running" or run.view.asked:
                await self._turns.requeue(run, asked=run.view.asked)
        self.keeper.clear_away(self._workspace.state / FOOTPRINT)
        self._task = asyncio.create_task(self._work())
        self._room.start()
        self.removal.start()
        self._wake()

    async def stop(self, *, timeout_s: float) -> None:
        """Checkpoint the current run, which stays at the head of the queue for the next service, and end the worker."""
        self.commands.close()
        await self.removal.close()
        await self._room.stop()
        async with self._lock:
            self._is_stopping = True
            await self._call_back()
        if self._turns.current:
            await self._wait_or_hurry(self._turns.has_left, timeout_s)
        await self._end_worker()
        await self.keeper.close()
        await self.reports.close()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stop_timer()
        run = self._turns.current
        if run and run.outcome:
            await self._turns.leave(run, run.outcome)
        ended = ErrorInfo(code="service.stopping", title="The service stopped first.", hint="Ask again.")
        for job in list(self.jobs.open()):
            self.jobs.end(job, "failed", ended)
        await self._ledger.close()

    def apply_settings(self, worker_settings: Message, *, idle_unload_s: float) -> None:
        """Change what the constructor was given."""
        self._idle_unload_s = idle_unload_s
        self.keeper.renew(worker_settings)
        self._wake()

    @property
    def is_training(self) -> bool:
        """Whether a run has the worker."""
        return self._turns.current is not None

    def hurry(self) -> None:
        """Make `stop` wait for nothing more."""
        self._hurry.set()

    def view(self) -> QueueView:
        """Whether runs and jobs get to a worker, and in which order runs will."""
        order = self._ledger.runs.shown_order()
        if self.keeper.surrender:
            return QueueView(state="paused", reason=self.keeper.surrender, order=order)
        if self.keeper.view.state == "gpu_wedged":
            return QueueView(state="blocked", reason=self.keeper.view.note, order=order)
        return QueueView(order=order)

    def resume(self) -> QueueView:
        """Have a queue that was paused after too many crashes try again. Raises VocableError `service.stopping`."""
        self.commands.check_open()
        self._try_again()
        self._wake()
        return self.view()

    def add_job(self, job: Job) -> None:
        """Take a job for the worker. Raises VocableError `queue.full`, `queue.paused` or `service.stopping`."""
        self.commands.check_open()
        view = self.view()
        if view.state != "running":
            hint = "Let it go on with: vocable queue resume" if view.state == "paused" else ""
            raise VocableError("queue.paused", view.reason, hint)
        self.jobs.add(job)
        self._wake()

    def cancel_job(self, job: Job) -> JobView:
        """End a job; the worker follows soon when it has it. A job that ended stays as it is."""
        if not job.sent:
            self.jobs.end(job, "cancelled")
        elif not job.ended.is_set():
            job.cancelled = True
            self.keeper.send({"do": "cancel", "job": job.id})
        return job.view

    async def _call_back(self) -> None:
        """Ask the worker for the current run; what the user asked of it, if anything, comes first."""
        run, is_sent = self._turns.current, self._turns.is_sent
        if run and run.outcome:
            await self._turns.leave(run, run.outcome)
        elif run and not run.view.asked:
            await self._turns.requeue(run)
            if is_sent:
                self._turns.hold(run)
                self.keeper.send({"do": "pause", "run": run.id})

    async def _wait_or_hurry(self, event: asyncio.Event, timeout_s: float) -> None:
        tasks = [asyncio.create_task(event.wait()), asyncio.create_task(self._hurry.wait())]
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    async def _end_worker(self) -> None:
        if not self._hurry.is_set():
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.keeper.stop(timeout_s=1), 2)
        self.keeper.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.keeper.stop(timeout_s=1), 1)

    def _try_again(self) -> None:
        """Start workers again after a crash loop: somebody asked for it."""
        self.keeper.forgive()
        self._ledger.set_problem("worker", "")

    def _worker_changed(self) -> None:
        view = self.keeper.view
        self._hub.fact("worker", view)
        self._ledger.set_problem("device", view.note if view.state == "gpu_wedged" else "")

    def _tell_queue(self) -> None:
        view = self.view()
        if view != self._told:
            self._told = view
            self._hub.fact("queue", view)

    def _wake(self) -> None:
        self._inbox.put_nowait(None)

    async def _wake_runs(self, runs: list[Run]) -> None:
        """Queue paused runs again, the first of them at the head."""
        async with self._lock:
            for run in reversed(runs):
                if run.view.state == "paused" and not self._is_stopping:
                    await self._turns.requeue(run, asked=run.view.asked)
        self._wake()

    async def _work(self) -> None:
        while True:
            item = await self._inbox.get()
            async with self._lock:
                try:
                    await self._take(item)
                    await self._dispatch()
                    self._tell_queue()
                except Exception:
                    _log.exception("what the worker said could not be handled")

    async def _take(self, item: Message | WorkerExit | Run | Job | None) -> None:
        match item:
            case dict():
                await self.reports.take_message(item)
            case WorkerExit() if self._is_stopping:
                self._turns.lose_worker()
            case WorkerExit():
                self._may_have_remains = True
                await self.reports.take_exit(item)
            case Run() | Job():
                await self.reports.take_settled(item)

    async def _dispatch(self) -> None:
        """Give the worker everything that it should have now."""
        self._stop_timer()
        if self._is_stopping:
            return
        if self._may_have_remains and not self.keeper.is_present:
            self._may_have_remains = False
            await self._tidy()
        if self.keeper.surrender:
            return
        run, jobs = self._turns.next(), list(self.jobs.open())
        if not run and not jobs:
            self.keeper.note_work(is_busy=False)
            if self.keeper.is_ready:
                self._start_timer(self._idle_unload_s, self.keeper.retire)
        elif not self.keeper.is_present:
            pause_s = self.keeper.pause_left_s()
            if pause_s > 0:
                self._start_timer(pause_s, self._wake)
            else:
                await self.keeper.start()
        elif self.keeper.is_ready:
            self.keeper.note_work(is_busy=True)
            for job in jobs:
                await self._send_job(job)
            if run and not self._turns.is_sent and not run.outcome:
                await self._send_run(run)

    async def _tidy(self) -> None:
        with contextlib.suppress(VocableError):
            self._ledger.check_writable()
            await asyncio.to_thread(sweep, self._workspace, self._ledger.runs.everything())

    async def _send_job(self, job: Job) -> None:
        if job.sent or self._is_written_now(job.destination):
            return
        if job.destination:
            try:
                await asyncio.to_thread(keep_copy, job.destination, self._workspace.trash_for(job.destination))
            except VocableError as error:
                self.jobs.end(job, "failed", describe_error(error))
        if job.ended.is_set():
            return
        job.sent = True
        self.reports.flush_words()
        self.keeper.send(job.message)
        self.jobs.show(job, state="running")

    def _is_written_now(self, destination: Path | None) -> bool:
        """Whether a job writes this file that the worker has: only when it is done can the file be kept."""
        return destination is not None and any(job.sent and job.destination == destination for job in self.jobs.open())

    async def _send_run(self, run: Run) -> None:
        destination = self._workspace.results(run.view.kind) / f"{run.view.name}.safetensors"
        try:
            await asyncio.to_thread(make_folder, Path(run.view.folder))
            await asyncio.to_thread(keep_copy, destination, self._workspace.trash_for(destination))
        except VocableError as error:
            await self.reports.fail(run, describe_error(error))
            return self._wake()
        await self._turns.give(run)
        self.reports.flush_words()
        where = {"folder": run.view.folder, "destination": str(destination)}
        self.keeper.send({"do": "train", "run": run.id, "recipe": run.recipe, **where})
        if run.view.asked:
            self.keeper.send({"do": run.view.asked, "run": run.id})
        bind_run(_log, run.id).info("goes to the worker")

    def _start_timer(self, delay_s: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, then)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
