"""Notices that the machine was suspended: what changed meanwhile on a file server, nobody told of.

Run by the server as a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

INTERVAL_S = 10.0
_LEAST_S = 1.0
"""The two clocks are not read at the same instant."""

_log = logging.getLogger(__name__)


def read_suspended_s() -> float:
    """How long this machine has been suspended since it was started, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


async def follow_suspends(
    on_resume: Callable[[], None],
    *,
    suspended_s: Callable[[], float] = read_suspended_s,
    interval_s: float = INTERVAL_S,
) -> None:
    """Call `on_resume` whenever the machine was suspended, until cancelled.

    Args:
        suspended_s: as `read_suspended_s`.
        interval_s: between looks; the loop's own clock stands still while the machine does.
    """
    known_s = suspended_s()
    while True:
        await asyncio.sleep(interval_s)
        now_s = suspended_s()
        if now_s - known_s >= _LEAST_S:
            _log.info("the machine was suspended for %.0f s; the folders are looked through again", now_s - known_s)
            on_resume()
        known_s = now_s
