"""Services and workers are killed at random moments of a scripted run of jobs, and nothing is lost or done twice.

`make chaos KILLS=200 SEED=7` kills 200 of each; `FIRST=120` goes on at the 120th kill of that seed. What happens is
printed with -s.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.chaos.house import House
from tests.chaos.killer import Kill, Killer, draw
from tests.chaos.script import RECIPES, User, Yield, recipe, vectors_in
from tests.chaos.watcher import Watcher

KILLS = int(os.environ.get("VOCABLE_KILLS", "40"))
SEED = int(os.environ.get("VOCABLE_SEED", "7"))
FIRST = int(os.environ.get("VOCABLE_FIRST", "1"))

Say = Callable[[str], None]


async def train_undisturbed(root: Path) -> dict[str, Yield]:
    """What a run of each recipe leaves that ends by itself."""
    house = House(root)
    try:
        await house.start()
        await house.until_up()
        watcher = Watcher(house, print)
        following = asyncio.create_task(watcher.follow())
        runs = {}
        for kind in RECIPES:
            if kind != "short":
                runs[kind] = (await house.client.create_run(recipe(kind, kind))).id

        def are_done() -> bool:
            return all(run in watcher.runs and watcher.runs[run].state == "finished" for run in runs.values())

        await watcher.until(are_done)
        following.cancel()
        found = {kind: await Yield.of(house.client, run) for kind, run in runs.items()}
        await house.stop()
        return found
    finally:
        await house.abandon()


async def spend_days(
    house: House, kills: Sequence[Kill], twins: Mapping[str, Yield], say: Callable[[str], None]
) -> None:
    """Live in the house until all kills are done and the day is over."""
    watcher = Watcher(house, say)
    user = User(house, watcher, twins, random.Random(kills[0].number))
    killer = Killer(house, watcher, say)

    async def kill_all() -> None:
        for kill in kills:
            await killer.carry_out(kill)

    await house.start()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(watcher.follow())
        keeping = group.create_task(user.keep_queue_going())
        killing = group.create_task(kill_all())
        day = 0
        while day == 0 or not killing.done():
            await user.spend_day(day)
            day += 1
            say(f"day {day} is over")
        following.cancel()
        keeping.cancel()
    await house.stop()
    say(f"queue paused {watcher.seen['paused queue']} times, pauses cut short {watcher.seen['pause cut short']} times")
    say(f"{user.cut_short} previews were cut short")
    say(f"{len(kills)} kills in {day} days: {dict(sorted(killer.moments.items()))}")
    assert watcher.faults == []
    house.check_log()
    user.check_words()
    check_order(house)


def check_order(house: House) -> None:
    """Everything lies where it belongs, whole, and nothing else does."""
    root, workspace = house.workspace.root, house.workspace
    assert not [path for path in root.rglob("*") if ".tmp" in path.name]
    assert not [path for path in root.rglob("quarantine")], "something was found damaged"
    assert not [path for path in workspace.inbox.glob("*.toml")]
    assert not (workspace.inbox / "refused").exists() or not list((workspace.inbox / "refused").iterdir())
    for path in (*workspace.embeddings.glob("*"), *workspace.trash.glob("*.safetensors")):
        vectors_in(str(path))
    folders = {str(path) for home in (workspace.runs, workspace.trash / "runs") for path in home.glob("*/*")}
    assert folders == {row.folder for row in house.rows.values()}
    assert {row.state for row in house.rows.values()} <= {"finished", "stopped"}


async def kill_often(folder: Path, kills: Sequence[Kill], say: Say) -> None:
    (folder / "calm").mkdir()
    twins = await train_undisturbed(folder / "calm")
    (folder / "house").mkdir()
    shutil.copy(folder / "calm" / "embeddings" / "rested.safetensors", folder / "house" / "gift")
    house = House(folder / "house")
    try:
        await spend_days(house, kills, twins, say)
    finally:
        await house.abandon()
        (folder / "service.log").write_text("\n".join(house.log))


@pytest.mark.chaos
async def test_nothing_is_lost_or_done_twice_whenever_service_and_worker_are_killed(tmp_path: Path) -> None:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {text}", flush=True)

    print(f"seed {SEED}, {KILLS} kills of each, from the {FIRST}th; in {tmp_path}", flush=True)
    await kill_often(tmp_path, draw(SEED, KILLS)[FIRST - 1 :], say)
