"""A machine that was suspended is noticed by what its two clocks have between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from daemon.watch.suspend import follow_suspends, read_suspended_s


async def resumes(*readings: float) -> int:
    """How often somebody is told, of clocks that read like this one look after the other."""
    told = 0
    left: Iterator[float] = iter(readings)
    done = asyncio.Event()

    def read() -> float:
        value = next(left, None)
        if value is None:
            done.set()
            return readings[-1]
        return value

    def count() -> None:
        nonlocal told
        told += 1

    task = asyncio.create_task(follow_suspends(count, suspended_s=read, interval_s=0))
    await done.wait()
    task.cancel()
    return told


async def test_each_suspend_is_told_once() -> None:
    assert await resumes(7.0, 7.0, 67.0, 67.0, 67.0, 4000.0) == 2


async def test_clocks_that_are_read_one_after_the_other_are_no_suspend() -> None:
    assert await resumes(0.0, 0.02, -0.01, 0.4, 0.1) == 0


def test_the_time_in_suspend_does_not_go_on_while_the_machine_runs() -> None:
    read: Callable[[], float] = read_suspended_s
    assert read() >= -0.001
    assert abs(read() - read()) < 1
