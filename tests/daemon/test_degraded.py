"""A service whose history cannot be used: it answers, shows why, and refuses what it could not keep."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daemon.history import History
from daemon.paths import Workspace
from daemon.salvage import open_database
from daemon.schema import VERSION
from engine.errors import VocableError
from engine.files import write_atomically
from tests.daemon.conftest import recipe, serving
from tests.daemon.test_history import make_run, steps
from tests.mounts import MIB, fill, remount, small_disk


async def opening_fails(path: Path) -> VocableError:
    history = History(path)
    with pytest.raises(VocableError) as caught:
        await history.open(now=1000.0)
    await history.close()
    return caught.value


async def test_a_service_with_a_newer_history_answers_and_refuses_changes_with_the_reason(workspace: Workspace) -> None:
    open_database(workspace.database, now=0.0)[0].close()
    with closing(sqlite3.connect(workspace.database)) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    async with serving(workspace) as running:
        state = await running.client.state()
        assert state.runs == []
        assert "newer Vocable" in state.problem
        assert await running.client.runs() == []
        assert len(await running.client.models()) == 2
        with pytest.raises(VocableError) as caught:
            await running.client.create_run(recipe(workspace))
        assert caught.value.code == "service.degraded"
        assert "newer Vocable" in caught.value.title


async def test_a_service_with_a_damaged_history_begins_a_new_one_and_says_where_the_old_one_is(
    workspace: Workspace,
) -> None:
    write_atomically(workspace.database, b"\xff" * 10_000)
    async with serving(workspace) as running:
        assert "The history was damaged" in (await running.client.state()).problem
        run = await running.train()
        worker = await running.crew.worker(1)
        await worker.told("train", run=run.id)
        assert str(workspace.state / "quarantine") in (await running.client.state()).problem
    async with serving(workspace) as running:
        assert (await running.client.state()).problem == ""
        assert [view.id for view in await running.client.runs()] == [run.id]


async def test_a_history_on_a_full_disk_is_refused_as_such_and_opens_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as folder:
        filler = fill(folder, leave=0)
        assert (await opening_fails(folder / "vocable.db")).code == "disk.full"
        filler.unlink()
        open_database(folder / "vocable.db", now=0.0)[0].close()


async def test_a_history_on_a_read_only_disk_is_refused_and_untouched(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as folder:
        open_database(folder / "vocable.db", now=0.0)[0].close()
        remount(folder, writable=False)
        error = await opening_fails(folder / "vocable.db")
        assert error.code == "history.failed"
        assert "cannot be written to" in error.title
        remount(folder, writable=True)
        open_database(folder / "vocable.db", now=0.0)[0].close()


async def test_a_history_on_a_disk_that_is_full_meanwhile_is_read_and_written_again_later(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as folder:
        history = History(folder / "vocable.db")
        await history.open(now=1000.0)
        await history.add_run(make_run(), key="key", digest="digest")
        await history.close()
        filler = fill(folder, leave=0)
        history = History(folder / "vocable.db")
        [run] = await history.open(now=10**9)
        run.view.step = 7
        with pytest.raises(VocableError, match="no room"):
            await history.save([run])
        filler.unlink()
        await history.save([run])
        await history.close()
        history = History(folder / "vocable.db")
        assert [run.view.step for run in await history.open(now=10**9)] == [7]
        await history.close()


async def test_a_disk_that_fills_up_keeps_the_losses_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as folder:
        history = History(folder / "vocable.db")
        await history.open(now=1000.0)
        run = make_run()
        await history.add_run(run, key="", digest="")
        filler = fill(folder, leave=0)
        run.losses = steps(*[0.5] * 100_000)
        with pytest.raises(VocableError) as caught:
            await history.save([run])
        assert caught.value.code == "disk.full"
        filler.unlink()
        await history.save([run])
        assert [point.step for point in await history.losses(run.id, 1)] == [100_000]
        await history.close()
