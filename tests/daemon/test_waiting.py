"""Waits with a limit end when their task is cancelled, at whatever moment."""

from __future__ import annotations

import asyncio

import pytest

from daemon.waiting import wait_at_most


async def test_a_wait_says_whether_what_it_waited_for_came() -> None:
    event = asyncio.Event()
    assert not await wait_at_most(event, 0)
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_at_most(event, float("inf"))


@pytest.mark.parametrize("turns", range(8))
async def test_a_task_that_waits_again_and_again_ends_when_it_is_cancelled(turns: int) -> None:
    """The cancellation meets the wait at each of the turns of the loop that it takes."""
    event = asyncio.Event()

    async def follow() -> None:
        while True:
            await wait_at_most(event, 60)
            event.clear()

    task = asyncio.create_task(follow())
    for _ in range(5):
        await asyncio.sleep(0)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    task.cancel()
    assert done == {task}
