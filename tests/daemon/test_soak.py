"""A service that is used at random goes on telling one truth: in its table, on the stream, in its file, on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daemon.keeper import Message
from daemon.paths import Workspace
from daemon.protocol.runs import MoveRun
from daemon.protocol.service import State, StreamLine
from daemon.protocol.states import ENDED
from daemon.worker.exits import WorkerExit
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Crew, Running, StandIn, serving
from tests.daemon.words import drop, word_file
from tui.store import View, apply_line, view_snapshot

EXPECTED = {"run.state", "run.name_taken", "run.unknown", "queue.paused"}
"""What a client may be told that asks for something without looking first."""


class Obedient(StandIn):
    """A worker that stops and pauses its run when told to."""

    run = ""

    def send(self, message: Message) -> None:
        super().send(message)
        match message["do"]:
            case "train":
                self.run = message["run"]
            case "stop":
                self.finish("stopped")

    def finish(self, outcome: str) -> None:
        if self.run and self.pid:
            self.tell(self.run, event="ended", outcome=outcome, step=100, embedding="")


class Obedients(Crew):
    def hire(self, on_message: Callable[[Message], None], on_exit: Callable[[WorkerExit], None]) -> Obedient:
        worker = Obedient(on_message, on_exit)
        self.workers.append(worker)
        return worker

    @property
    def last(self) -> Obedient | None:
        worker = self.workers[-1] if self.workers else None
        return worker if isinstance(worker, Obedient) and worker.pid else None


class Screen:
    """What a terminal program would show: a snapshot, and every line after it."""

    def __init__(self, running: Running) -> None:
        self._client = running.client
        self._news = asyncio.Event()
        self.view = View()
        self.seq = -1

    async def open(self) -> None:
        state = await self._client.state()
        self.view, self.seq = view_snapshot(state, 0.0), state.seq
        self._task = asyncio.create_task(self._follow(f"{state.boot_id}:{state.seq}"))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def shows(self, state: State) -> None:
        """Wait until it shows what `state` says, or more."""
        async with asyncio.timeout(PATIENCE_S):
            while self.seq < state.seq:
                self._news.clear()
                await self._news.wait()

    async def _follow(self, cursor: str) -> None:
        async for line in self._client.events(cursor):
            self._take(line)
            self._news.set()

    def _take(self, line: StreamLine) -> None:
        if line.type == "fact":
            assert line.seq == self.seq + 1
            self.seq = line.seq
        if line.topic:
            self.view = apply_line(self.view, line, 0.0)


class Life:
    """A random life of one workspace over several services."""

    def __init__(self, workspace: Workspace, seed: int) -> None:
        self.workspace = workspace
        self.rng = random.Random(seed)
        self.crew = Obedients()
        self.words: dict[str, float] = {}
        self.count = 0

    async def spend(self, running: Running, actions: int) -> None:
        """Do so many things with one service, and look at everything after each."""
        screen = Screen(running)
        await screen.open()
        for _ in range(actions):
            action = self.rng.choices(
                (self.train, self.command, self.move, self.remove, self.work, self.put_word), (4, 6, 2, 3, 8, 3)
            )[0]
            with allowed():
                await action(running)
            if self.rng.random() < 0.1:
                await screen.close()
                screen = Screen(running)
                await screen.open()
            await self.check(running, screen)
        await screen.close()

    async def train(self, running: Running) -> None:
        self.count += 1
        await running.train(f"word{self.count % 7}")

    async def command(self, running: Running) -> None:
        await running.client.command(await self.any_run(running), self.rng.choice(("pause", "resume", "stop")))

    async def move(self, running: Running) -> None:
        await running.client.move(await self.any_run(running), MoveRun(place=self.rng.choice(("first", "last"))))

    async def remove(self, running: Running) -> None:
        act: Callable[[str], Awaitable[object]] = self.rng.choice(
            (running.client.delete_run, running.client.delete_run, running.client.restore_run)
        )
        await act(f"word{self.rng.randrange(7)}" if act == running.client.restore_run else await self.any_run(running))

    async def work(self, running: Running) -> None:
        worker = self.crew.last
        if worker and worker.run:
            match self.rng.choice(("step", "step", "finished", "die")):
                case "step":
                    worker.step(worker.run, self.rng.randrange(1, 100))
                case "finished":
                    worker.finish("finished")
                case _:
                    worker.die(step=self.rng.randrange(100))

    async def put_word(self, running: Running) -> None:
        name, value = f"thing{self.rng.randrange(4)}", self.rng.choice((0.25, 0.5, 0.75))
        path = self.workspace.embeddings / f"{name}.safetensors"
        if self.words.pop(name, None) and self.rng.random() < 0.5:
            path.unlink()
        else:
            drop(path, word_file(value))
            self.words[name] = value

    async def any_run(self, running: Running) -> str:
        runs = await running.client.runs()
        return self.rng.choice(runs).id if runs else "none"

    async def check(self, running: Running, screen: Screen) -> None:
        """One run at a time, one order, and the same on the screen once it is told everything."""
        state = await running.client.state()
        at_work = [run.id for run in state.runs if run.state == "running"]
        queued = [run.id for run in state.runs if run.state == "queued"]
        assert len(at_work) <= 1
        assert state.queue.order == queued
        await screen.shows(state)
        assert sum(run.state == "running" for run in screen.view.runs) <= 1

    async def settle(self, running: Running) -> State:
        """What the service says when nothing is under way, which screen, file and disk must say too."""
        screen = Screen(running)
        await screen.open()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                state = await running.client.state()
                await screen.shows(state)
                shown = {run.id: run.state for run in screen.view.runs}
                words = {Path(word.path).stem for word in state.words if word.verdict != "unreadable"}
                if shown == {run.id: run.state for run in state.runs} and words == set(self.words):
                    break
                await asyncio.sleep(0.01)
        await screen.close()
        return state

    def check_disk(self, state: State) -> None:
        """The file of the history after the service ended, and the runs' folders."""
        with contextlib.closing(sqlite3.connect(self.workspace.database)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = {row[0]: row[1:] for row in database.execute("SELECT id, state, folder FROM runs")}
        for folder in (Path(row[1]) for row in rows.values()):
            assert folder.is_dir()
        here = {run: row[0] for run, row in rows.items() if not Path(row[1]).is_relative_to(self.workspace.trash)}
        assert here.keys() == {run.id for run in state.runs}
        # What was at work may have ended since, and what is to be stopped may have come to a worker for that.
        ending = {run.id for run in state.runs if run.state == "running" or run.asked == "stop"}
        ended = {run.id: run.state for run in state.runs if run.state in ENDED}
        assert {run: kept for run, kept in here.items() if kept in ENDED and run not in ending} == ended


@contextlib.contextmanager
def allowed():  # type: ignore[no-untyped-def]
    try:
        yield
    except VocableError as error:
        if error.code not in EXPECTED:
            raise


async def live(workspace: Workspace, seed: int, *, services: int, actions: int) -> None:
    life = Life(workspace, seed)
    handles: list[int] = []
    for _ in range(services):
        async with serving(workspace, life.crew) as running:
            await life.spend(running, actions)
            await running.client.resume_queue()
            state = await life.settle(running)
        life.check_disk(state)
        handles.append(len(os.listdir("/proc/self/fd")))
    assert max(handles[1:]) <= handles[0] + 2


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_service_that_is_used_at_random_tells_one_truth_everywhere(workspace: Workspace, seed: int) -> None:
    await live(workspace, seed, services=3, actions=40)


@pytest.mark.chaos
async def test_a_service_that_is_used_at_random_for_long_stays_as_small_as_it_was(workspace: Workspace) -> None:
    await live(workspace, 7, services=3, actions=100)
    before = resident_bytes()
    await live(workspace, 8, services=20, actions=500)
    assert resident_bytes() < before + (64 << 20)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
