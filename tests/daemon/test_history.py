"""The SQLite file: what it keeps, what it refuses, how it stands a kill."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.history import History
from daemon.protocol.runs import ErrorInfo, Warning
from daemon.runs import Run, new_run
from daemon.schema import VERSION
from engine.errors import VocableError
from engine.events import Step
from engine.recipe import build_recipe


def make_run(identifier: str = "abc123", position: float = 1.0) -> Run:
    recipe = build_recipe({"name": "word", "data": {"folder": "faces"}})
    return new_run(recipe, identifier, Path("/runs"), position, now=1000.0)


def steps(*losses: float | None, first: int = 1) -> list[Step]:
    return [Step(first + index, loss, 0.005) for index, loss in enumerate(losses)]


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    history = History(tmp_path / "vocable.db")
    await history.open(now=1000.0)
    yield history
    await history.close()


async def reopen(path: Path) -> list[Run]:
    history = History(path)
    try:
        return await history.open(now=1000.0)
    finally:
        await history.close()


async def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    history = History(tmp_path / "vocable.db")
    await history.open(now=1000.0)
    run = make_run()
    await history.add_run(run, key="", digest="")
    run.view.state, run.view.step, run.view.asked, run.view.restarts = "running", 42, "stop", 2
    run.view.warnings = [Warning(code="a.b", title="Something.", step=3)]
    run.view.error = ErrorInfo(code="c.d", title="Worse.", faults=[{"path": "x", "message": "y"}])
    await history.save([run])
    await history.close()
    [back] = await reopen(tmp_path / "vocable.db")
    assert (back.view, back.recipe, back.position) == (run.view, run.recipe, run.position)


async def test_losses_come_in_at_most_the_asked_number_of_buckets_with_their_extremes(history: History) -> None:
    run = make_run()
    await history.add_run(run, key="", digest="")
    run.losses = steps(4.0, 2.0, None, 1.0, 3.0, 5.0, 7.0)
    await history.save([run])
    points = [(point.step, point.mean, point.low, point.high) for point in await history.losses(run.id, 3)]
    assert points == [(2, 3.0, 2.0, 4.0), (6, 3.0, 1.0, 5.0), (7, 7.0, 7.0, 7.0)]


@pytest.mark.parametrize("resumed_at", [0, 255, 256, 257, 700, 1999])
async def test_steps_that_are_done_again_count_once_in_fine_and_coarse_plots(history: History, resumed_at: int) -> None:
    run = make_run()
    await history.add_run(run, key="", digest="")
    run.losses = steps(*[9.0] * 2000)
    await history.save([run])
    await history.forget_losses(run.id, after_step=resumed_at)
    run.losses = steps(*[1.0] * (2000 - resumed_at), first=resumed_at + 1)
    await history.save([run])
    mean = (9.0 * resumed_at + 1.0 * (2000 - resumed_at)) / 2000
    for points in (1, 2000):
        found = await history.losses(run.id, points)
        sizes = [later.step - earlier for earlier, later in zip([0, *(p.step for p in found)], found, strict=False)]
        assert sum(point.mean * size for point, size in zip(found, sizes, strict=True)) / 2000 == pytest.approx(mean)


async def test_coarse_buckets_equal_the_plain_sums_over_all_losses(history: History) -> None:
    run, draw = make_run(), random.Random(1)
    await history.add_run(run, key="", digest="")
    losses = [draw.random() for _ in range(5000)]
    for first in range(0, 5000, 333):
        run.losses = steps(*losses[first : first + 333], first=first + 1)
        await history.save([run])
    for point in await history.losses(run.id, 5):
        bucket = losses[point.step - 1024 if point.step % 1024 == 0 else 4096 : point.step]
        assert (point.low, point.high) == (min(bucket), max(bucket))
        assert point.mean == pytest.approx(sum(bucket) / len(bucket))


async def test_a_failed_save_gives_the_losses_back(history: History) -> None:
    run = make_run()
    run.losses = steps(1.0)
    run.view.folder = "\udcff"
    with pytest.raises(VocableError, match="cannot be used"):
        await history.save([run])
    assert run.losses == steps(1.0)


async def test_previews_are_listed_by_step_and_a_remade_one_once(history: History) -> None:
    run = make_run()
    await history.add_run(run, key="", digest="")
    for step, path in ((20, "b"), (10, "a"), (20, "b")):
        await history.add_preview(run.id, step=step, path=path)
    assert await history.previews(run.id) == ["a", "b"]


async def test_a_request_is_remembered_for_a_week(tmp_path: Path) -> None:
    history = History(tmp_path / "vocable.db")
    await history.open(now=1000.0)
    await history.add_run(make_run(), key="key", digest="digest")
    assert await history.find_request("key") == ("digest", "abc123")
    await history.close()
    history = History(tmp_path / "vocable.db")
    await history.open(now=1000.0 + 8 * 24 * 3600)
    assert await history.find_request("key") is None
    await history.close()


async def test_nobody_else_can_open_the_file_meanwhile(history: History, tmp_path: Path) -> None:
    await history.add_run(make_run(), key="", digest="")
    with pytest.raises(VocableError, match="locked"):
        await reopen(tmp_path / "vocable.db")


async def test_a_file_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "vocable.db"
    await reopen(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(VocableError, match="newer Vocable"):
        await reopen(path)
    assert path.read_bytes() == before


async def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocable.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(VocableError, match="not a history of Vocable"):
        await reopen(path)


async def test_a_run_that_makes_no_sense_is_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "vocable.db"
    history = History(path)
    await history.open(now=1000.0)
    for identifier in ("abc123", "def456"):
        await history.add_run(make_run(identifier), key="", digest="")
    await history.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET state = 'dancing' WHERE id = 'abc123'")
    connection.close()
    history = History(path)
    assert [run.id for run in await history.open(now=1000.0)] == ["def456"]
    assert "abc123" in history.notice
    await history.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from daemon.history import History
from engine.events import Step
from tests.daemon.test_history import make_run

async def main():
    history = History(Path(sys.argv[1]))
    runs = await history.open(now=0.0)
    run = runs[0] if runs else make_run()
    if not runs:
        await history.add_run(run, key="", digest="")
    while True:
        run.view.step += 1
        run.losses = [Step(run.view.step, 1.0, 0.1)]
        await history.save([run])
        print(run.view.step, flush=True)

asyncio.run(main())
"""


def write_and_be_killed(path: Path, saves: int) -> int:
    """Returns the last step that the process said it had saved."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(saves)]
        writer.send_signal(signal.SIGKILL)
    return said[-1]


async def test_a_process_killed_while_it_writes_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    path, draw = tmp_path / "vocable.db", random.Random(5)
    for _ in range(3):
        said = await asyncio.to_thread(write_and_be_killed, path, draw.randrange(1, 200))
        [run] = await reopen(path)
        assert run.view.step >= said
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT COUNT(*), MAX(step) FROM losses").fetchone() == (run.view.step,) * 2
        connection.close()
