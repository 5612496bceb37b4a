"""Losses of old runs: fewer, and still the same curve."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.history import History
from daemon.losses import KEPT_WHOLE, THINNED_POINTS
from daemon.runs import Run
from engine.errors import VocableError
from tests.daemon.test_history import make_run, steps

LENGTH = 5000
SIZE = 4
"""Steps in a block of a thinned run of that length."""


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    history = History(tmp_path / "vocable.db")
    await history.open(now=1000.0)
    yield history
    await history.close()


async def add(history: History, name: str, *, ended_at: float, length: int = LENGTH) -> tuple[Run, list[float]]:
    run, draw = make_run(name), random.Random(name)
    losses = [draw.random() for _ in range(length)]
    run.view.state, run.view.ended_at = "finished", ended_at
    await history.add_run(run, key="", digest="")
    run.losses = steps(*losses)
    await history.save([run])
    return run, losses


async def add_newer(history: History, count: int = KEPT_WHOLE) -> None:
    for number in range(count):
        await add(history, f"new{number:03d}", ended_at=5000.0 + number, length=10)


async def size_of(history: History, run: Run) -> int:
    """How many points the history has of a run."""
    return len(await history.losses(run.id, 10**6))


async def test_an_old_run_keeps_mean_and_extremes_of_its_losses(history: History) -> None:
    run, losses = await add(history, "old", ended_at=2000.0)
    await add_newer(history)
    await history.thin()
    points = await history.losses(run.id, 2000)
    assert LENGTH / SIZE == len(points) <= THINNED_POINTS
    for number, point in enumerate(points):
        block = losses[number * SIZE : (number + 1) * SIZE]
        assert (point.step, point.low, point.high) == ((number + 1) * SIZE, min(block), max(block))
        assert point.mean == pytest.approx(sum(block) / SIZE)


async def test_a_plot_with_fewer_points_joins_the_blocks_of_a_thinned_run(history: History) -> None:
    run, losses = await add(history, "old", ended_at=2000.0)
    await add_newer(history)
    await history.thin()
    points = await history.losses(run.id, 5)
    assert [point.step for point in points] == [1000, 2000, 3000, 4000, 5000]
    for point in points:
        bucket = losses[point.step - 1000 : point.step]
        assert (point.low, point.high) == (min(bucket), max(bucket))
        assert point.mean == pytest.approx(sum(bucket) / 1000)


async def test_the_runs_that_ended_last_and_short_ones_keep_every_step(history: History) -> None:
    short, _ = await add(history, "short", ended_at=1.0, length=THINNED_POINTS)
    old, _ = await add(history, "old", ended_at=2.0)
    last, _ = await add(history, "last", ended_at=9000.0)
    going, _ = await add(history, "going", ended_at=0.0)
    going.view.state = "running"
    await history.save([going])
    await add_newer(history, KEPT_WHOLE - 1)
    await history.thin()
    sizes = [await size_of(history, run) for run in (short, old, last, going)]
    assert sizes == [THINNED_POINTS, LENGTH // SIZE, LENGTH, LENGTH]


async def test_a_thinned_run_that_goes_on_is_one_curve_and_is_thinned_again(history: History) -> None:
    run, losses = await add(history, "old", ended_at=2000.0)
    await add_newer(history)
    await history.thin()
    run.view.state = "running"
    await history.forget_losses(run.id, after_step=LENGTH - 2)
    run.losses = steps(*[0.5] * 5002, first=LENGTH - 1)
    await history.save([run])
    [half, rest] = await history.losses(run.id, 2)
    assert half.step == LENGTH
    assert half.mean == pytest.approx(sum(losses) / LENGTH, rel=0.01)
    assert (rest.step, rest.mean) == (2 * LENGTH, 0.5)
    run.view.state = "finished"
    await history.save([run])
    await history.thin()
    assert await size_of(history, run) == 2 * LENGTH / 8


async def test_a_run_that_goes_on_while_it_is_thinned_stays_whole(history: History) -> None:
    run, _ = await add(history, "old", ended_at=2000.0)
    await add_newer(history)
    thinning = asyncio.create_task(history.thin())
    await asyncio.sleep(0)  # the first transaction is with the thread
    run.view.state = "running"
    await history.save([run])
    await thinning
    assert await size_of(history, run) == LENGTH


@pytest.mark.parametrize("after", range(1, 6))
async def test_thinning_that_is_broken_off_anywhere_is_finished_the_next_time(
    history: History, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run, losses = await add(history, "old", ended_at=2000.0)
    await add_newer(history)
    real, done = history._call, 0

    async def fail_after(work):  # type: ignore[no-untyped-def]
        nonlocal done
        done += 1
        if done > after:
            raise VocableError("disk.full", "Full.")
        return await real(work)

    with monkeypatch.context() as patch:
        patch.setattr(history, "_call", fail_after)
        if after < 5:
            with pytest.raises(VocableError):
                await history.thin()
    [whole] = await history.losses(run.id, 1)
    assert (whole.step, whole.low, whole.high) == (LENGTH, min(losses), max(losses))
    await history.thin()
    assert await size_of(history, run) == LENGTH / SIZE
    assert whole.mean == pytest.approx((await history.losses(run.id, 1))[0].mean)
