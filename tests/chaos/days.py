"""Days in a house in which services and workers are killed, and what must be true of the house afterwards."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.chaos.house import House
from tests.chaos.killer import Kill, Killer
from tests.chaos.recipes import RECIPES, Yield, recipe, vectors_in
from tests.chaos.script import User
from tests.chaos.watcher import Watcher

KEPT = [kind for kind in RECIPES if kind != "short"]
"""Runs of these come to their end."""

Say = Callable[[str], None]


async def train_undisturbed(house: House) -> dict[str, Yield]:
    """What a run of each recipe leaves that ends by itself."""
    watcher = Watcher(house, print)
    following = asyncio.create_task(watcher.follow())
    runs = {kind: (await house.client.create_run(recipe(kind, kind))).id for kind in KEPT}

    def are_done() -> bool:
        views = [watcher.runs[run] for run in runs.values() if run in watcher.runs]
        assert not [view.error for view in views if view.state == "failed"]
        return [view.state for view in views] == ["finished"] * len(runs)

    await watcher.until(are_done)
    following.cancel()
    return {kind: await Yield.of(house.client, run) for kind, run in runs.items()}


async def spend_days(
    house: House, kills: Sequence[Kill], twins: Mapping[str, Yield], *, say: Say, whole: bool = True
) -> None:
    """Live in the house until all kills are done and the day is over.

    Args:
        whole: days have everything in them; without, they are short, and each kill waits for its very moment.
    """
    watcher = Watcher(house, say)
    user = User(house, watcher, twins, random.Random(kills[0].number), patience=0.3 if whole else 0)
    killer = Killer(house, watcher, say) if whole else Killer(house, watcher, say, wait_s=60, ready_s=60)

    async def kill_all() -> None:
        for kill in kills:
            await killer.carry_out(kill)

    async with asyncio.TaskGroup() as group:
        following = group.create_task(watcher.follow())
        keeping = group.create_task(user.keep_queue_going())
        killing = group.create_task(kill_all())
        day = 0
        while day == 0 or not killing.done():
            await user.spend_day(day, whole=whole)
            day += 1
            say(f"day {day} is over")
        following.cancel()
        keeping.cancel()
    await house.stop()
    say(f"queue paused {watcher.seen['paused queue']} times, pauses cut short {watcher.seen['pause cut short']} times")
    say(f"{user.cut_short} previews were cut short")
    say(f"{len(kills)} kills in {day} days: {dict(sorted(killer.moments.items()))}")
    assert watcher.faults == []
    names = Counter(view.name for view in watcher.runs.values())
    assert [name for name, count in names.items() if count > 1] == [], "a run was queued twice"
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
    for folder in folders:
        check_log(folder)


def check_log(folder: str) -> None:
    """A run that was taken up again went on from its newest checkpoint."""
    newest = 0
    for line in Path(folder, "log.txt").read_text().splitlines():
        if found := re.match(r"\S+ (checkpoint|prepared) .*?step=(\d+)", line):
            assert int(found[2]) >= newest, f"{folder} went back from step {newest} to {found[2]}"
            newest = int(found[2])
