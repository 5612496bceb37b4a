"""What a client sees of a service that is killed again and again: state and events, taken up anew after each loss."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from daemon.protocol.runs import RunView
from daemon.protocol.service import QueueView, State, StreamLine, WorkerView
from engine.errors import VocableError
from tests.chaos.house import House

PATIENCE_S = 3600.0
"""Only a hang takes this long, also where workers are killed faster than a busy machine starts them."""

LOST = ("link.absent", "link.lost", "service.stopping")


class Watcher:
    """Follows a house. What must not be is noted in `faults`, and said at once."""

    def __init__(self, house: House, say: Callable[[str], None]) -> None:
        self.runs: dict[str, RunView] = {}
        self.boot = ""
        self.worker = WorkerView()
        self.queue = QueueView()
        self.words = 0
        """How often the words changed."""
        self.seen: Counter[str] = Counter()
        """Facts and gauges so far, by topic, and runs' phases and states."""
        self.farthest: dict[str, int] = {}
        self.faults: list[str] = []
        self._house = house
        self._say = say
        self._news = asyncio.Event()

    async def follow(self) -> None:
        """Follow until cancelled."""
        while True:
            await self._house.up.wait()
            try:
                state = await self._house.client.state()
                self._take_state(state)
                async for line in self._house.client.events(f"{state.boot_id}:{state.seq}"):
                    self._take(line)
            except VocableError as error:
                if error.code not in LOST:
                    raise
                await asyncio.sleep(0.01)  # the service is dying and the house learns of it at once

    async def until(self, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        """Wait for news until `condition` holds, and return what it returned. Raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            while not (found := condition()):
                self._news.clear()
                await self._news.wait()
            return found

    def forget_worker(self) -> None:
        """The service was killed, and its worker with it."""
        self.worker = WorkerView()

    def note(self, what: str) -> None:
        """Count something that happened on this side."""
        self.seen[what] += 1
        self._tell()

    def blame(self, fault: str) -> None:
        self.faults.append(fault)
        self._say(f"FAULT: {fault}")

    def _take_state(self, state: State) -> None:
        self.boot, self.worker, self.queue = state.boot_id, state.worker, state.queue
        self.words += 1
        for view in state.runs:
            self._take_run(view)
        self._tell()

    def _take(self, line: StreamLine) -> None:
        match line.topic:
            case "run" | "progress":
                self._take_run(RunView.model_validate(line.data))
            case "worker":
                self.worker = WorkerView.model_validate(line.data)
            case "queue":
                self.queue = QueueView.model_validate(line.data)
                if self.queue.state == "paused" and self.worker.pid is not None:
                    self.blame("a worker was started although the queue is paused")
            case "words":
                self.words += 1
        if line.topic:
            self.seen[line.topic] += 1
            self._tell()

    def _take_run(self, view: RunView) -> None:
        before = self.runs.get(view.id)
        if before and before.state == "finished" and view.state != "finished":
            self.blame(f"run {view.id} was finished and is {view.state}")
        if before is None or (before.state, before.phase) != (view.state, view.phase):
            self.seen[view.state] += 1
            self.seen[view.phase] += view.phase != ""
        self.farthest[view.id] = max(view.step, self.farthest.get(view.id, 0))
        self.runs[view.id] = view

    def _tell(self) -> None:
        self._news.set()
