"""A run that lost its worker or its service, or was paused, leaves the very bits of a run that was left alone."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from watchdog.events import DirCreatedEvent, FileCreatedEvent, FileSystemEventHandler
from watchdog.observers import Observer

from daemon.protocol.runs import RunView
from engine.training.checkpoint import load_newest
from tests.chaos.days import spend_days, train_undisturbed
from tests.chaos.house import House
from tests.chaos.killer import Kill
from tests.chaos.recipes import Yield, find_differences, recipe
from tests.chaos.watcher import Watcher

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS = (
    Kill(0, "service", "ready", 1, 0.2),
    Kill(1, "service", "start", 1, 0.3),
    Kill(2, "worker", "spawned", 1, 0.5),
    Kill(3, "worker", "progress", 2, 0.02),
    Kill(4, "service", "preview", 1, 0.01),
    Kill(5, "worker", "spawned", 1, 1.0),
)


@dataclass(frozen=True)
class Calm:
    """A house in which nothing was ever killed, and what its runs left."""

    house: House
    twins: dict[str, Yield]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calm]:
    async with House(tmp_path_factory.mktemp("calm") / "house") as house:
        yield Calm(house, await train_undisturbed(house))


async def until(house: House, run: str, *states: str, step: int = 0) -> RunView:
    """The run's view once it has one of these states, and did so many steps."""
    watcher = Watcher(house, print)
    following = asyncio.create_task(watcher.follow())

    def find() -> RunView | None:
        view = watcher.runs.get(run)
        return view if view and view.state in states and view.step >= step else None

    found: RunView = await watcher.until(find)
    following.cancel()
    return found


async def test_pause_and_resume_leave_the_same_bits(calm: Calm) -> None:
    client = calm.house.client
    run = (await client.create_run(recipe("rested", "paused"))).id
    await until(calm.house, run, "running", step=1)
    await client.command(run, "pause")
    assert (await until(calm.house, run, "paused")).step < 24
    await client.command(run, "resume")
    await until(calm.house, run, "finished")
    assert find_differences(await Yield.of(client, run), calm.twins["rested"]) == []


async def test_a_service_that_is_ended_in_a_checkpoint_leaves_it_whole_and_the_next_one_goes_on(calm: Calm) -> None:
    house, client = calm.house, calm.house.client
    run = await client.create_run(recipe("measured", "ended"))
    await until_checkpoint(run.folder, 10)
    house.ask_to_end()
    await house.until_stopped()
    assert house.rows[run.id].state == "queued"
    checkpoints = Path(run.folder, "checkpoints")
    kept, moved = load_newest(checkpoints)
    assert kept is not None
    assert (kept.step >= 10, moved) == (True, ())
    await house.start()
    await house.until_up()
    assert (await until(house, run.id, "running", "finished", step=kept.step)).restarts == 0
    await until(house, run.id, "finished")
    assert find_differences(await Yield.of(client, run.id), calm.twins["measured"]) == []


async def until_checkpoint(folder: str, step: int) -> None:
    """Wait until the worker begins to write the checkpoint of this step."""
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    class Lookout(FileSystemEventHandler):
        def on_created(self, event: DirCreatedEvent | FileCreatedEvent) -> None:
            if f"/{step:06d}.tmp-" in str(event.src_path):
                loop.call_soon_threadsafe(begun.set)

    observer = Observer()
    observer.schedule(Lookout(), folder, recursive=True)
    observer.start()
    try:
        async with asyncio.timeout(60):
            await begun.wait()
    finally:
        observer.stop()
        observer.join()


async def test_nothing_is_lost_or_done_twice_when_services_and_workers_are_killed(calm: Calm, tmp_path: Path) -> None:
    async with House(tmp_path / "house") as house:
        shutil.copy(calm.house.workspace.embeddings / "rested.safetensors", house.gift)
        await spend_days(house, KILLS, calm.twins, say=print, whole=False)
