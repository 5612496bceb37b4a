"""Runs that met a full disk: they wait, say so, and go on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from daemon import room
from daemon.paths import Workspace
from daemon.room import has_room
from tests.daemon.conftest import PATIENCE_S, Running, StandIn, serving
from tests.mounts import MIB, fill, small_disk

FULL = {"code": "disk.full", "title": "There is no room to write /x.", "hint": "Free some space."}


class Disk:
    """Stands in for the disk; every look at it is told."""

    def __init__(self) -> None:
        self.has_room = False
        self.looks = threading.Semaphore(0)

    def answer(self, _folder: Path, _size: int) -> bool:
        self.looks.release()
        return self.has_room

    async def looked(self) -> None:
        """Until somebody looked at the disk, and did so again after he took note of it."""
        for _ in range(2):
            assert await asyncio.to_thread(self.looks.acquire, timeout=PATIENCE_S)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(room, "has_room", disk.answer)
    monkeypatch.setattr(room, "LOOK_EVERY_S", 0.02)
    return disk


async def fill_up(running: Running, name: str = "word", worker: StandIn | None = None) -> tuple[str, StandIn]:
    """A run that the worker gave up because the disk was full."""
    run = await running.train(name)
    worker = worker or await running.crew.worker(1)
    await worker.told("train", run=run.id)
    worker.step(run.id, 1, 2, 3)
    worker.say(type="failed", run=run.id, error=FULL)
    await running.until_state(run.id, "paused")
    worker.sent.clear()
    return run.id, worker


async def until_problem(running: Running, text: str) -> None:
    """Until the service has a problem with `text` in it, or none when that is empty."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            problem = (await running.client.state()).problem
            if text in problem and bool(text) == bool(problem):
                return


async def test_a_run_that_meets_a_full_disk_waits_and_says_so(disk: Disk, workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run, worker = await fill_up(running)
        await disk.looked()
        view = await running.client.run(run)
        assert (view.state, view.error and view.error.code, view.step) == ("paused", "disk.full", 3)
        await until_problem(running, "The disk is full: 'word' waits")
        assert worker.sent == []


async def test_it_goes_on_by_itself_when_there_is_room(disk: Disk, workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run, worker = await fill_up(running)
        disk.has_room = True
        await worker.told("train", run=run)
        view = await running.until_state(run, "running")
        assert view.error is None
        await until_problem(running, "")


async def test_it_still_waits_and_goes_on_after_the_service_was_started_again(disk: Disk, workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run, _ = await fill_up(running)
    async with serving(workspace) as running:
        await until_problem(running, "waits")
        disk.has_room = True
        worker = await running.crew.worker(1)
        await worker.told("train", run=run)


async def test_several_go_on_in_their_order(disk: Disk, workspace: Workspace) -> None:
    async with serving(workspace) as running:
        first, worker = await fill_up(running, "first")
        second, _ = await fill_up(running, "second", worker)
        await until_problem(running, "'first', 'second'")
        disk.has_room = True
        await worker.told("train", run=first)
        await running.until_state(second, "queued")


async def test_what_was_asked_of_it_is_still_done(disk: Disk, workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run = (await running.train()).id
        worker = await running.crew.worker(1)
        worker.obeys = False
        await worker.told("train", run=run)
        await running.client.command(run, "stop")
        worker.say(type="failed", run=run, error=FULL)
        await running.until_state(run, "paused")
        worker.sent.clear()
        disk.has_room = True
        await worker.told("train", run=run)
        await worker.told("stop", run=run)


async def test_a_pause_that_was_asked_for_stays_one(disk: Disk, workspace: Workspace) -> None:
    disk.has_room = True
    async with serving(workspace) as running:
        run = (await running.train()).id
        worker = await running.crew.worker(1)
        worker.obeys = False
        await worker.told("train", run=run)
        await running.client.command(run, "pause")
        worker.say(type="failed", run=run, error=FULL)
        view = await running.until_state(run, "paused")
        assert (view.error, [warning.code for warning in view.warnings]) == (None, ["disk.full"])


async def test_a_waiting_run_can_be_paused_for_good_or_resumed_by_hand(disk: Disk, workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run, worker = await fill_up(running)
        view = await running.client.command(run, "pause")
        assert (view.state, view.error) == ("paused", None)
        run, _ = await fill_up(running, "other", worker)
        await running.client.command(run, "resume")
        await worker.told("train", run=run)
        assert (await running.client.run(run)).error is None


def test_room_is_what_can_really_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as folder:
        assert has_room(folder / "not" / "there" / "yet", 4 * MIB)
        assert not has_room(folder, 9 * MIB)
        filler = fill(folder, leave=MIB)
        assert not has_room(folder, 4 * MIB)
        filler.unlink()
        assert has_room(folder, 4 * MIB)
        assert list(folder.iterdir()) == []
