"""Ending on SIGTERM and SIGHUP: with a clean terminal where there is one, and in any case soon.

Used by `app`. Handlers of the event loop would not do: when the terminal is gone, the loop itself may hang in a write
to it, while Python's own handlers still run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

END_WITHIN_S = 5.0
"""Time for a clean end; it takes a fraction of a second unless the terminal is gone."""


def leave_on_signals(leave: Callable[[int], object]) -> Callable[[], None]:
    """Call `leave` with the exit code (128 + signal) on the running loop; returns what undoes this.

    Main thread only. Whatever becomes of `leave`, the process ends soon after the signal; nothing is lost by that,
    since everything is the service's.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, _: FrameType | None) -> None:
        threading.Thread(target=_end_anyway, args=(128 + number,), daemon=True).start()
        loop.call_soon_threadsafe(leave, 128 + number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGHUP)}

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo


def _end_anyway(code: int) -> None:
    time.sleep(END_WITHIN_S)
    os._exit(code)
