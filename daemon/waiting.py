"""Waiting with a limit, in tasks that others cancel."""

from __future__ import annotations

import asyncio
import contextlib
import math


async def wait_at_most(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, at most so long; infinity is for ever. Returns whether it is set.

    `asyncio.wait_for` of Python 3.11 can lose the cancellation of its caller when the time is up at the same moment,
    and then a task that was to end goes on for ever.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if math.isinf(seconds) else seconds):
            await event.wait()
    return event.is_set()
