"""What the worker says, and what becomes of it. Part of the queue, which hands the messages over in their order.

A word that was just made counts as made when the library knows it: until then its run or job is settling.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daemon.jobs import Job, Jobs
from daemon.keeper import CRASH_WINDOW_S, CRASHES, Keeper, Message
from daemon.ledger import Ledger
from daemon.protocol.runs import ErrorInfo
from daemon.room import Room
from daemon.runfiles import list_previews
from daemon.runs import Run, add_warning, apply_event, describe_error, leave_device, read_error
from daemon.trash import move_away
from daemon.turns import Turns
from daemon.worker.board import JOB
from daemon.worker.supervise import WorkerExit
from engine.errors import VocableError
from engine.events import (
    CheckpointSaved,
    DatasetChanged,
    Ended,
    Event,
    PhaseChanged,
    Prepared,
    PreviewSaved,
    event_from_dict,
)

WORDS_TIMEOUT_S = 10.0
"""A word that was just made is waited for this long before its run or job counts as done."""

WORDS_INTERVAL_S = 2.0
"""While words come and go, a worker that is given no new work hears of them no more often than this."""

_log = logging.getLogger(__name__)


class Reports:
    """Takes the worker's messages and its end.

    Args:
        trash_for: where a file goes that a new one replaces.
        known: the words, and the hypernetworks, that prompts can use, as the worker wants them.
        rescan: returns when a file just written to a watched folder can be used.
        on_model: called with the message that names the model which the worker loaded.
        on_settled: called when what a run or job made is a word.
    """

    def __init__(
        self,
        ledger: Ledger,
        turns: Turns,
        keeper: Keeper,
        jobs: Jobs,
        room: Room,
        *,
        trash_for: Callable[[Path], Path],
        known: Callable[[], Message],
        rescan: Callable[[], Awaitable[None]],
        on_model: Callable[[Message], None],
        on_settled: Callable[[Run | Job], None],
    ) -> None:
        self._ledger = ledger
        self._turns = turns
        self._keeper = keeper
        self._jobs = jobs
        self._room = room
        self._trash_for = trash_for
        self._known = known
        self._rescan = rescan
        self._on_model = on_model
        self._on_settled = on_settled
        self._settling: set[asyncio.Task[None]] = set()
        self._are_words_due = False
        self._words_timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Wait for no word any more."""
        self._stop_timer()
        for task in self._settling:
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)

    def send_words(self) -> None:
        """Tell the worker which words and hypernetworks there are, soon: of thousands with many changes, not at each.

        What the worker is given to do always comes after `flush_words`.
        """
        self._are_words_due = True
        if self._words_timer is None:
            self.flush_words()

    def flush_words(self) -> None:
        """Tell the worker which words there are if it does not know."""
        if not self._are_words_due or not self._keeper.is_ready:
            return
        self._stop_timer()
        self._are_words_due = False
        self._keeper.send({"do": "words", **self._known()})
        self._words_timer = asyncio.get_running_loop().call_later(WORDS_INTERVAL_S, self._end_pause)

    def _end_pause(self) -> None:
        self._words_timer = None
        self.flush_words()

    def _stop_timer(self) -> None:
        if self._words_timer:
            self._words_timer.cancel()
            self._words_timer = None

    async def take_message(self, message: Message) -> None:
        current = self._turns.current
        run = current if current and message.get("run") == current.id else None
        job = self._jobs.find_open(message.get("job"))
        match message["type"]:
            case "ready":
                self._keeper.note_ready(message["device"])
                self._stop_timer()
                self.send_words()
            case "model":
                self._keeper.note_model(message["name"])
                self._on_model(message)
            case "event" if run:
                await self._take_event(run, event_from_dict(message["event"]))
            case "failed" if run:
                await self.fail(run, read_error(message["error"]))
            case "job" if job:
                self._jobs.show_progress(job, done=message["done"], total=message["total"])
            case "result" if job:
                await self._take_result(job, message["result"])
            case "failed" if job:
                error = None if job.cancelled else read_error(message["error"])
                self._jobs.end(job, "cancelled" if job.cancelled else "failed", error)

    async def fail(self, run: Run, error: ErrorInfo) -> None:
        """End a run with an error, or have it wait when only the disk is full."""
        if error.code == "disk.full":
            await self._room.rest(run, error)
        else:
            await self._turns.leave(run, "failed", error)

    async def take_settled(self, item: Run | Job) -> None:
        """End a run or job whose word can be used now."""
        if isinstance(item, Job):
            self._jobs.end(item, "done")
        elif item is self._turns.current and item.outcome:
            await self._turns.leave(item, item.outcome)

    async def take_exit(self, end: WorkerExit) -> None:
        """Keep what the worker had for the next one; after too many crashes, give up."""
        self._keeper.note_exit(end)
        is_crash = end.kind != "asked"
        had_run, run = self._turns.lose_worker(), self._turns.current
        is_runs_own = had_run and end.mark.phase != JOB
        for job in [job for job in self._jobs.open() if job.sent and job.view.result is None]:
            self._jobs.give_back(job, end.title, is_crash=is_crash and not is_runs_own)
        if run and had_run and not run.outcome:
            await self._take_run_back(run, end if is_crash else None, is_runs_own=is_runs_own)
        if is_crash and self._keeper.is_looping:
            await self._give_up(end)

    async def _take_run_back(self, run: Run, crash: WorkerExit | None, *, is_runs_own: bool) -> None:
        """Keep the run that a lost worker had for the next one; one that ended two workers at the same step is not
        tried a third time. Who was killed from outside was not killed by what the run does."""
        if crash:
            run.view.restarts += 1
            add_warning(run.view, "worker.lost", crash.title, f"The run goes on by itself. {crash.hint}".strip())
        is_suspect = crash is not None and is_runs_own and crash.kind != "killed"
        if crash and is_suspect and run.lost_at and run.lost_at.step == crash.mark.step:
            title = f"The worker was lost twice at the same step. {crash.title}"
            hint = f"The run is not tried again by itself. {crash.hint}".strip()
            await self._turns.leave(run, "failed", ErrorInfo(code="worker.poison", title=title, hint=hint))
            return
        if crash and is_suspect:
            run.lost_at = crash.mark
        if run.view.asked == "pause":
            await self._turns.leave(run, "paused")
        else:
            leave_device(run.view, asked=run.view.asked)
            await self._ledger.keep(run)

    async def _give_up(self, end: WorkerExit) -> None:
        """Stop feeding work to workers that die of it."""
        title = f"The worker was lost {CRASHES} times within {CRASH_WINDOW_S / 60:g} minutes. {end.title}"
        hint = "See state/worker.log in the workspace; let the queue go on with: vocable queue resume"
        reason = f"The queue is paused. {title}"
        _log.error("%s", reason)
        self._keeper.give_up(reason)
        self._ledger.set_problem("worker", f"{reason} {hint}")
        run = self._turns.current
        if run and not run.outcome:
            add_warning(run.view, "queue.paused", reason, hint)
            await self._turns.requeue(run, asked=run.view.asked)
        for job in list(self._jobs.open()):
            self._jobs.end(job, "failed", ErrorInfo(code="worker.crash_loop", title=title, hint=hint))

    async def _take_event(self, run: Run, event: Event) -> None:
        phase = run.view.phase
        apply_event(run, event)
        match event:
            case Ended():
                await self._take_end(run, event)
            case Prepared():
                await self._ledger.try_to(self._ledger.history.forget_losses(run.id, after_step=event.step))
                await self._find_previews(run, event.step)
                await self._ledger.keep(run)
            case PreviewSaved():
                write = self._ledger.history.add_preview(run.id, step=event.step, path=event.path)
                await self._ledger.try_to(write)
                await self._ledger.keep(run)
            case DatasetChanged():
                await self._ledger.keep(run)
            case CheckpointSaved():
                # From here on the steps before are not done again, so their losses must not be lost either.
                await self._ledger.keep(run)
            case PhaseChanged() if event.phase != phase:
                await self._ledger.keep(run)
            case _:
                self._ledger.note(run)

    async def _find_previews(self, run: Run, step: int) -> None:
        """Note previews up to `step` that were written, but not told of before the service was killed."""
        view = run.view
        for made_at, path in await asyncio.to_thread(list_previews, Path(view.folder), view.name):
            if view.preview_step <= made_at <= step:
                await self._ledger.try_to(self._ledger.history.add_preview(run.id, step=made_at, path=path))
                view.preview, view.preview_step = path, made_at

    async def _take_end(self, run: Run, event: Ended) -> None:
        run.view.step = event.step
        if event.outcome != "paused":
            run.view.embedding = event.embedding
            run.outcome = "stopped" if event.outcome == "stopped" else "finished"
            self._settle(run)
        elif run.view.asked == "pause":
            await self._turns.leave(run, "paused")
        else:
            await self._turns.requeue(run, asked=run.view.asked)

    async def _take_result(self, job: Job, result: dict[str, Any]) -> None:
        job.view = job.view.model_copy(update={"result": result})
        try:
            for path in job.replaces:
                await asyncio.to_thread(move_away, path, self._trash_for(path))
        except VocableError as error:
            self._jobs.end(job, "failed", describe_error(error))
            return
        if job.destination:
            self._settle(job)
        else:
            self._jobs.end(job, "done")

    def _settle(self, item: Run | Job) -> None:
        task = asyncio.create_task(self._await_word(item))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _await_word(self, item: Run | Job) -> None:
        try:
            await asyncio.wait_for(self._rescan(), WORDS_TIMEOUT_S)
            self.send_words()
        except TimeoutError:
            _log.warning("the folder is slow; what was just made may not be known yet")
        finally:
            self._on_settled(item)
