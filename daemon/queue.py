"""The queue: which run has the worker, what it is told, and what becomes of what it says.

Part of the service. One task handles what the worker says, in order; commands and messages change the state under one
lock. The invariant: whatever is killed at any moment, a run that was not ended goes on from its newest checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daemon.events import Hub
from daemon.jobs import Job, Jobs
from daemon.keeper import CRASH_WINDOW_S, CRASHES, Keeper, MakeWorker, Message, backoff_s
from daemon.ledger import Ledger
from daemon.logs import bind_run
from daemon.paths import Workspace
from daemon.protocol.jobs import JobView
from daemon.protocol.runs import ErrorInfo
from daemon.protocol.states import POSSIBLE, RunCommand, RunState
from daemon.runs import Run, add_warning, apply_event, describe_error, is_repeated, leave_device, new_run, read_error
from daemon.trash import keep_copy, move_away
from daemon.worker.supervise import WorkerExit
from engine.errors import VocableError
from engine.events import CheckpointSaved, Ended, Event, PhaseChanged, Prepared, PreviewSaved, event_from_dict
from engine.files import write_error
from engine.recipe import Recipe

WORDS_TIMEOUT_S = 10.0
"""A word that was just made is waited for this long before its run or job counts as done."""

_log = logging.getLogger(__name__)


class Queue:
    """Runs one at a time, in order; jobs at once, also beside a run.

    Args:
        worker_settings: the worker's first message.
        words: the words that prompts can use, as the worker wants them.
        rescan: returns when a file just written to the embeddings folder is a word.
        on_model: called with the message that names the model which the worker loaded.
        idle_unload_s: the worker is let go after so long without work.
    """

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        hub: Hub,
        make_worker: MakeWorker,
        worker_settings: Message,
        *,
        words: Callable[[], list[dict[str, Any]]],
        rescan: Callable[[], Awaitable[None]],
        on_model: Callable[[Message], None],
        idle_unload_s: float,
        backoff: Callable[[int], float] = backoff_s,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.jobs = Jobs(hub)
        self._workspace = workspace
        self._ledger = ledger
        self._words = words
        self._rescan = rescan
        self._on_model = on_model
        self._idle_unload_s = idle_unload_s
        self.clock = clock
        self._inbox: asyncio.Queue[Message | WorkerExit | Run | Job | None] = asyncio.Queue()
        self.keeper = Keeper(
            make_worker,
            worker_settings,
            on_message=self._inbox.put_nowait,
            on_exit=self._inbox.put_nowait,
            on_change=lambda: hub.fact("worker", self.keeper.view),
            backoff=backoff,
        )
        self._lock = asyncio.Lock()
        self._current: Run | None = None
        """The run that the worker has, or had when it was lost."""
        self._is_sent = False
        """Whether the present worker has it."""
        self._has_left = asyncio.Event()
        """Set when `_current` comes back from the worker."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    # Life

    async def start(self) -> None:
        """Take over what the history holds: a run that was under way goes on first."""
        await self._ledger.open(now=self.clock())
        for run in self._ledger.runs.unfinished():
            if run.view.asked == "pause":
                await self._leave(run, "paused")
            elif run.view.state == "running" or run.view.asked:
                await self._requeue(run, asked=run.view.asked)
        self._task = asyncio.create_task(self._work())
        self._wake()

    async def stop(self, *, timeout_s: float) -> None:
        """Checkpoint the current run, which stays at the head of the queue for the next service, and end the worker."""
        async with self._lock:
            self._is_stopping = True
            await self._call_back()
        if self._current:
            await self._wait_or_hurry(self._has_left, timeout_s)
        await self._end_worker()
        tasks = [*self._settling, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer:
            self._timer.cancel()
        if self._current and self._current.outcome:
            await self._leave(self._current, self._current.outcome)
        ended = ErrorInfo(code="service.stopping", title="The service stopped first.", hint="Ask again.")
        for job in list(self.jobs.open()):
            self.jobs.end(job, "failed", ended)
        await self._ledger.close()

    def hurry(self) -> None:
        """Make `stop` wait for nothing more."""
        self._hurry.set()

    async def _call_back(self) -> None:
        """Ask for the current run; what the user asked of it, if anything, comes first."""
        run, is_sent = self._current, self._is_sent
        if run and run.outcome:
            await self._leave(run, run.outcome)
        elif run and not run.view.asked:
            await self._requeue(run)
            if is_sent:
                self._current, self._is_sent = run, True
                self._has_left.clear()
                self.keeper.send({"do": "pause", "run": run.id})

    async def _end_worker(self) -> None:
        if not self._hurry.is_set():
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.keeper.stop(timeout_s=1), 2)
        self.keeper.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.keeper.stop(timeout_s=1), 1)

    async def _wait_or_hurry(self, event: asyncio.Event, timeout_s: float) -> None:
        tasks = [asyncio.create_task(event.wait()), asyncio.create_task(self._hurry.wait())]
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    # Commands

    async def find_request(self, key: str, digest: str) -> Run | None:
        """The run that an earlier request with this idempotency key made.

        Raises:
            VocableError: `request.key_reused` when that request asked for something else; `service.degraded`.
        """
        self._ledger.check_writable()
        found = await self._ledger.history.find_request(key) if key else None
        if found and found[0] != digest:
            raise VocableError(
                "request.key_reused", "This Idempotency-Key was used for another request.", "Use a new one."
            )
        return self._ledger.runs.get(found[1]) if found else None

    async def create_run(self, recipe: Recipe, *, key: str = "", digest: str = "") -> Run:
        """Queue a run whose recipe was checked; the same key and digest give the same run.

        Raises:
            VocableError: `run.name_taken`, `request.key_reused`, `service.*`, `disk.*`, `history.failed`.
        """
        async with self._lock:
            self._check_open()
            known = await self.find_request(key, digest)
            if known:
                return known
            self._check_name(recipe.name)
            runs = self._ledger.runs
            run = new_run(recipe, runs.new_id(), self._workspace.runs, runs.position_at_end(), now=self.clock())
            folder = Path(run.view.folder)
            await asyncio.to_thread(_make_folder, folder)
            try:
                await self._ledger.history.add_run(run, key=key, digest=digest)
            except VocableError:
                await asyncio.to_thread(_remove_empty, folder)
                raise
            runs.add(run)
            self._ledger.announce(run)
            bind_run(_log, run.id).info("queued '%s'", recipe.name)
            self._work_on()
            return run

    async def command(self, reference: str, command: RunCommand) -> Run:
        """Carry out a command; the worker follows between two steps. Repeating one changes nothing.

        Raises:
            VocableError: `run.unknown`, `run.ambiguous`, `run.state` when the run's state does not allow it.
        """
        async with self._lock:
            self._check_open()
            run = self._ledger.runs.find(reference)
            if not is_repeated(run.view, command):
                self._check_possible(run, command)
                await {"pause": self._pause, "resume": self._resume, "stop": self._stop}[command](run)
                bind_run(_log, run.id).info("%s asked for; it is %s", command, run.view.state)
            if command == "resume":
                self._work_on()
            self._wake()
            return run

    def add_job(self, job: Job) -> None:
        """Take a job for the worker. Raises VocableError `queue.full` or `service.stopping`."""
        if self._is_stopping:
            raise _stopping()
        self.jobs.add(job)
        self._work_on()

    def cancel_job(self, job: Job) -> JobView:
        """End a job; the worker follows soon when it has it. A job that ended stays as it is."""
        if not job.sent:
            self.jobs.end(job, "cancelled")
        elif not job.ended.is_set():
            job.cancelled = True
            self.keeper.send({"do": "cancel", "job": job.id})
        return job.view

    def send_words(self) -> None:
        """Tell the worker which words there are."""
        if self.keeper.is_ready:
            self.keeper.send({"do": "words", "words": self._words()})

    async def _pause(self, run: Run) -> None:
        if run is not self._current or not self._is_sent:
            await self._leave(run, "paused")
        elif run.view.asked != "stop":
            await self._ask(run, "pause")

    async def _stop(self, run: Run) -> None:
        if run.view.started_at is None:
            await self._leave(run, "stopped")
        elif run is self._current:
            await self._ask(run, "stop")
        else:
            # The worker writes the embedding from the checkpoint, so the run has to come to it once more.
            await self._requeue(run, asked="stop")

    async def _resume(self, run: Run) -> None:
        if run is self._current:
            # The worker pauses nevertheless; then the run, of which nothing is asked, is queued again.
            run.view.asked = ""
            await self._ledger.keep(run)
        else:
            self._check_name(run.view.name, but=run.id)
            await self._requeue(run)

    async def _ask(self, run: Run, command: RunCommand) -> None:
        run.view.asked = command
        await self._ledger.keep(run)
        if self._is_sent:
            self.keeper.send({"do": command, "run": run.id})

    def _work_on(self) -> None:
        """See to the queue, also after a crash loop: somebody asks for another try."""
        if self._ledger.has_problem("worker"):
            self.keeper.forgive()
            self._ledger.set_problem("worker", "")
        self._wake()

    def _check_open(self) -> None:
        if self._is_stopping:
            raise _stopping()
        self._ledger.check_writable()

    def _check_name(self, name: str, *, but: str = "") -> None:
        other = self._ledger.runs.namesake(name, but=but)
        if other:
            raise VocableError(
                "run.name_taken",
                f"Run {other.id} ({other.view.state}) trains '{other.view.name}' already.",
                "Choose another name, or stop that run first.",
            )

    def _check_possible(self, run: Run, command: RunCommand) -> None:
        view = run.view
        is_stopping = run is self._current and view.asked == "stop"
        is_undone = command == "resume" and view.asked != "" and not is_stopping
        if run.outcome or (command not in POSSIBLE[view.state] and not is_undone):
            state = "being stopped" if is_stopping else run.outcome or view.state
            possible = ", ".join(sorted(POSSIBLE[view.state])) or "nothing"
            raise VocableError(
                "run.state", f"Run {run.id} is {state}; {command} is not possible.", f"Possible: {possible}."
            )

    # Deciding what the worker does

    async def _work(self) -> None:
        while True:
            item = await self._inbox.get()
            async with self._lock:
                try:
                    await self._handle(item)
                    await self._dispatch()
                except Exception:
                    _log.exception("what the worker said could not be handled")

    def _wake(self) -> None:
        self._inbox.put_nowait(None)

    def _wake_in(self, delay_s: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, then)

    async def _dispatch(self) -> None:
        """Give the worker everything that it should have now."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._is_stopping or self._ledger.has_problem("worker"):
            return
        run = self._current or self._ledger.runs.next_waiting()
        jobs = list(self.jobs.open())
        if not run and not jobs:
            self.keeper.note_work(is_busy=False)
            if self.keeper.is_ready:
                self._wake_in(self._idle_unload_s, self.keeper.retire)
        elif not self.keeper.is_present:
            pause_s = self.keeper.pause_left_s()
            if pause_s > 0:
                self._wake_in(pause_s, self._wake)
            else:
                await self.keeper.start()
        elif self.keeper.is_ready:
            self.keeper.note_work(is_busy=True)
            for job in jobs:
                await self._send_job(job)
            if run and not self._is_sent and not run.outcome:
                await self._send_run(run)

    async def _send_job(self, job: Job) -> None:
        if job.sent:
            return
        try:
            if job.destination:
                await asyncio.to_thread(keep_copy, job.destination, self._workspace.trash)
        except VocableError as error:
            self.jobs.end(job, "failed", describe_error(error))
            return
        job.sent = True
        self.keeper.send(job.message)
        self.jobs.show(job, state="running")

    async def _send_run(self, run: Run) -> None:
        destination = self._workspace.embeddings / f"{run.view.name}.safetensors"
        try:
            await asyncio.to_thread(_make_folder, Path(run.view.folder))
            await asyncio.to_thread(keep_copy, destination, self._workspace.trash)
        except VocableError as error:
            await self._leave(run, "failed", describe_error(error))
            return self._wake()
        self._current, self._is_sent = run, True
        self._has_left.clear()
        run.view.state = "running"
        run.view.started_at = run.view.started_at or self.clock()
        await self._ledger.keep(run)
        where = {"folder": run.view.folder, "destination": str(destination)}
        self.keeper.send({"do": "train", "run": run.id, "recipe": run.recipe, **where})
        if run.view.asked:
            self.keeper.send({"do": run.view.asked, "run": run.id})
        bind_run(_log, run.id).info("goes to the worker")

    # What the worker says

    async def _handle(self, item: Message | WorkerExit | Run | Job | None) -> None:
        match item:
            case WorkerExit():
                await self._take_exit(item)
            case Run():
                if item is self._current and item.outcome:
                    await self._leave(item, item.outcome)
            case Job():
                self.jobs.end(item, "done")
            case dict():
                run = self._current if self._current and item.get("run") == self._current.id else None
                job = self.jobs.find_open(item.get("job"))
                await self._take_message(item, run, job)

    async def _take_message(self, message: Message, run: Run | None, job: Job | None) -> None:
        match message["type"]:
            case "ready":
                self.keeper.note_ready(message["device"])
                self.send_words()
            case "model":
                self.keeper.note_model(message["name"])
                self._on_model(message)
            case "event" if run:
                await self._take_event(run, event_from_dict(message["event"]))
            case "failed" if run:
                await self._leave(run, "failed", read_error(message["error"]))
            case "job" if job:
                self.jobs.show_progress(job, done=message["done"], total=message["total"])
            case "result" if job:
                await self._take_result(job, message["result"])
            case "failed" if job:
                error = None if job.cancelled else read_error(message["error"])
                self.jobs.end(job, "cancelled" if job.cancelled else "failed", error)

    async def _take_event(self, run: Run, event: Event) -> None:
        phase = run.view.phase
        apply_event(run, event)
        match event:
            case Ended():
                await self._take_end(run, event)
            case Prepared():
                await self._ledger.try_to(self._ledger.history.forget_losses(run.id, after_step=event.step))
                await self._ledger.keep(run)
            case PreviewSaved():
                write = self._ledger.history.add_preview(run.id, step=event.step, path=event.path)
                await self._ledger.try_to(write)
                await self._ledger.keep(run)
            case CheckpointSaved():
                # From here on the steps before are not done again, so their losses must not be lost either.
                await self._ledger.keep(run)
            case PhaseChanged() if event.phase != phase:
                await self._ledger.keep(run)
            case _:
                self._ledger.note(run)

    async def _take_end(self, run: Run, event: Ended) -> None:
        run.view.step = event.step
        if event.outcome != "paused":
            run.view.embedding = event.embedding
            run.outcome = "stopped" if event.outcome == "stopped" else "finished"
            self._settle(run)
        elif run.view.asked == "pause":
            await self._leave(run, "paused")
        else:
            await self._requeue(run, asked=run.view.asked)

    async def _take_result(self, job: Job, result: dict[str, Any]) -> None:
        job.view = job.view.model_copy(update={"result": result})
        for path in job.replaces:
            await asyncio.to_thread(move_away, path, self._workspace.trash)
        if job.view.kind == "create":
            self._settle(job)
        else:
            self.jobs.end(job, "done")

    def _settle(self, item: Run | Job) -> None:
        """Bring `item` back to the inbox when the word that it made can be used."""

        async def settle() -> None:
            try:
                await asyncio.wait_for(self._rescan(), WORDS_TIMEOUT_S)
                self.send_words()
            except TimeoutError:
                _log.warning("the embeddings folder is slow; a new word may not be known yet")
            finally:
                self._inbox.put_nowait(item)

        task = asyncio.create_task(settle())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _take_exit(self, end: WorkerExit) -> None:
        self.keeper.note_exit(end)
        was_sent, self._is_sent = self._is_sent, False
        self._has_left.set()
        if self._is_stopping:
            return
        is_crash = end.kind != "asked"
        for job in [job for job in self.jobs.open() if job.sent and job.view.result is None]:
            self.jobs.give_back(job, end.title, is_crash=is_crash)
        run = self._current
        if run and was_sent and not run.outcome:
            if is_crash:
                run.view.restarts += 1
                add_warning(run.view, "worker.lost", end.title, "The run goes on from its newest checkpoint.")
            leave_device(run.view, asked=run.view.asked)
            if run.view.asked == "pause":
                await self._leave(run, "paused")
            else:
                await self._ledger.keep(run)
        if is_crash and self.keeper.is_looping:
            await self._give_up(end)

    async def _give_up(self, end: WorkerExit) -> None:
        """Stop feeding work to workers that die of it."""
        title = f"The worker was lost {CRASHES} times within {CRASH_WINDOW_S / 60:g} minutes. {end.title}"
        hint = "See state/worker.log in the workspace; resume the run to try again."
        error = ErrorInfo(code="worker.crash_loop", title=title, hint=hint)
        _log.error("the queue is paused: %s", title)
        self._ledger.set_problem("worker", f"The queue is paused. {title}")
        run = self._current or self._ledger.runs.next_waiting()
        if run:
            await self._leave(run, "failed", error)
        for job in list(self.jobs.open()):
            self.jobs.end(job, "failed", error)

    # Changes of state

    async def _leave(self, run: Run, state: RunState, error: ErrorInfo | None = None) -> None:
        """Take a run off the worker, or out of the queue, into `state`."""
        run.view.state, run.view.error, run.outcome = state, error, None
        run.view.ended_at = None if state == "paused" else self.clock()
        leave_device(run.view)
        self._let_go_of(run)
        await self._ledger.keep(run)
        bind_run(_log, run.id).info("%s at step %d%s", state, run.view.step, f": {error.title}" if error else "")

    async def _requeue(self, run: Run, *, asked: str = "") -> None:
        """Put a run at the head of the queue."""
        run.position = self._ledger.runs.position_at_head()
        run.view.state, run.view.error, run.view.ended_at = "queued", None, None
        leave_device(run.view, asked=asked)
        self._let_go_of(run)
        await self._ledger.keep(run)

    def _let_go_of(self, run: Run) -> None:
        if run is self._current:
            self._current, self._is_sent = None, False
            self._has_left.set()


def _stopping() -> VocableError:
    return VocableError("service.stopping", "The service is stopping.", "Start it again and repeat this.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
