"""What clients ask of runs: create, pause, resume, stop. Part of the queue.

The invariant: a command is one change under the queue's lock, and either all of it happens or nothing does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from daemon.ledger import Ledger
from daemon.logs import bind_run
from daemon.paths import Workspace
from daemon.protocol.runs import MoveRun
from daemon.protocol.states import POSSIBLE, RunCommand
from daemon.runs import Run, is_repeated, is_resting, new_run
from daemon.turns import Turns
from engine.errors import VocableError
from engine.files import make_folder
from engine.recipe import Recipe

_log = logging.getLogger(__name__)


class Commands:
    """Commands to runs.

    Args:
        lock: held while a command changes something; the queue holds it while it handles what the worker says.
        work_on: has the queue see what is to do now.
        try_again: has a queue that is paused after too many crashes go on.
    """

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        turns: Turns,
        *,
        lock: asyncio.Lock,
        work_on: Callable[[], None],
        try_again: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._turns = turns
        self._lock = lock
        self._work_on = work_on
        self._try_again = try_again
        self._clock = clock
        self._is_closed = False

    def close(self) -> None:
        """Refuse everything from now on, since the service stops."""
        self._is_closed = True

    def check_open(self) -> None:
        """Raises VocableError `service.stopping`."""
        if self._is_closed:
            raise VocableError("service.stopping", "The service is stopping.", "Start it again and repeat this.")

    async def find_request(self, key: str, digest: str) -> Run | None:
        """The run that an earlier request with this idempotency key made.

        Raises:
            VocableError: `request.key_reused` when that request asked for something else, or its run cannot be read;
                `service.degraded`.
        """
        self._ledger.check_writable()
        found = await self._ledger.history.find_request(key) if key else None
        if found and found[0] != digest:
            hint = "Use a new one for each run."
            raise VocableError("request.key_reused", "This Idempotency-Key was used for another request.", hint)
        if not found:
            return None
        run = self._ledger.runs.get_any(found[1])
        if run is None:
            title = "The run that was made with this Idempotency-Key cannot be read any more."
            raise VocableError("request.key_reused", title, "Use a new key for another run.")
        return run

    async def create(self, recipe: Recipe, *, key: str, digest: str) -> Run:
        """Queue a run whose recipe was checked; the same key and digest give the same run.

        Raises:
            VocableError: `run.name_taken`, `request.key_reused`, `service.*`, `disk.*`, `history.failed`.
        """
        async with self._lock:
            self.check_open()
            known = await self.find_request(key, digest)
            if known:
                return known
            self._check_name(recipe.kind, recipe.name)
            runs = self._ledger.runs
            run = new_run(recipe, runs.new_id(), self._workspace.runs, runs.position_at_end(), now=self._clock())
            folder = Path(run.view.folder)
            await asyncio.to_thread(make_folder, folder)
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

    async def carry_out(self, command: RunCommand, reference: str) -> Run:
        """Pause, resume or stop a run; the worker follows between two steps. Repeating a command changes nothing.

        Raises:
            VocableError: `run.unknown`, `run.ambiguous`, `run.state` when the run's state does not allow it.
        """
        async with self._lock:
            self.check_open()
            self._ledger.check_writable()
            run = self._ledger.runs.find(reference)
            if not is_repeated(run.view, command):
                self._check_possible(run, command)
                await {"pause": self._pause, "resume": self._resume, "stop": self._stop}[command](run)
                bind_run(_log, run.id).info("%s asked for; it is %s", command, run.view.state)
            if command == "resume":
                self._try_again()
            self._work_on()
            return run

    async def move(self, reference: str, request: MoveRun) -> Run:
        """Put a queued run elsewhere in the queue; moving it to where it is changes nothing.

        Raises:
            VocableError: `run.unknown`, `run.ambiguous`, `run.state` for a run, or a neighbour, that is not queued.
        """
        async with self._lock:
            self.check_open()
            self._ledger.check_writable()
            run, order = self._find_queued(reference), self._ledger.runs.waiting()
            places = sorted(other.position for other in order)
            if request.before is not None:
                neighbour = self._find_queued(request.before)
                order = [other for other in order if other is not run or other is neighbour]
                index = order.index(neighbour)
                order[index:index] = [] if neighbour is run else [run]
            else:
                order.remove(run)
                order.insert(0 if request.place == "first" else len(order), run)
            changed = [run for run, place in zip(order, places, strict=True) if run.position != place]
            for moved, place in zip(order, places, strict=True):
                moved.position = place
            await self._ledger.keep(*changed)
            self._work_on()
            return run

    async def _pause(self, run: Run) -> None:
        if not self._turns.has(run):
            await self._turns.leave(run, "paused")
        elif run.view.asked != "stop":
            await self._turns.ask(run, "pause")

    async def _resume(self, run: Run) -> None:
        if run is self._turns.current:
            # The worker pauses nevertheless; then the run, of which nothing is asked, is queued again.
            run.view.asked = ""
            await self._ledger.keep(run)
        else:
            self._check_name(run.view.kind, run.view.name, but=run.id)
            run.lost_at = None
            await self._turns.requeue(run)

    async def _stop(self, run: Run) -> None:
        if run.view.started_at is None:
            await self._turns.leave(run, "stopped")
        elif run is self._turns.current:
            await self._turns.ask(run, "stop")
        else:
            # The worker writes the embedding from the checkpoint, so the run has to come to it once more.
            await self._turns.requeue(run, asked="stop")

    def _find_queued(self, reference: str) -> Run:
        run = self._ledger.runs.find(reference)
        if run.view.state != "queued":
            title = f"Run {run.id} is {run.view.state}; only a queued run has a place in the queue."
            raise VocableError("run.state", title, "List the queue with: vocable queue")
        return run

    def _check_name(self, kind: str, name: str, *, but: str = "") -> None:
        other = self._ledger.runs.namesake(kind, name, but=but)
        if other:
            raise VocableError(
                "run.name_taken",
                f"Run {other.id} ({other.view.state}) trains '{other.view.name}' already.",
                "Choose another name, or stop that run first.",
            )

    def _check_possible(self, run: Run, command: RunCommand) -> None:
        view = run.view
        is_being_stopped = run is self._turns.current and view.asked == "stop"
        is_undone = command == "resume" and view.asked != "" and not is_being_stopped
        is_undone = is_undone or (command == "pause" and is_resting(view))
        if run.outcome or (command not in POSSIBLE[view.state] and not is_undone):
            state = "being stopped" if is_being_stopped else run.outcome or view.state
            possible = ", ".join(sorted(POSSIBLE[run.outcome or view.state])) or "nothing"
            raise VocableError(
                "run.state", f"Run {run.id} is {state}; {command} is not possible.", f"Possible: {possible}."
            )


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
