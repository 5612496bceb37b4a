"""Which process the last worker was, kept in `state/worker.json`, so that the next service finds one that outlived
its own and ends it before another worker asks for the same device.

Written by supervise, read by the keeper when the service starts. A process id alone says nothing, since the kernel
gives numbers out again: start time and boot make it one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon.waiting import wait_at_most
from engine.errors import VocableError
from engine.files import write_atomically

NAME = "worker.json"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    pid: int
    """Also the id of its process group."""
    started: int
    """Clock ticks from boot to its start."""
    boot_id: str


def leave_footprint(path: Path, pid: int) -> None:
    """Note a worker that was just started. A disk that takes nothing costs only the sweep after a crash."""
    footprint = _find_footprint(pid)
    if footprint:
        with contextlib.suppress(VocableError):
            write_atomically(path, json.dumps(asdict(footprint)).encode())


def remove_footprint(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


async def clear_away(path: Path, *, kill_s: float, on_stuck: Callable[[int], None]) -> None:
    """Kill the group of the worker in `path`, if that very process still lives, and return when it is gone.

    Args:
        kill_s: a process that lives longer than this after SIGKILL sits in a driver; `on_stuck` is told its id, and
            the wait goes on.
    """
    footprint = _read_footprint(path)
    handle = _open_process(footprint) if footprint else None
    if footprint and handle is not None:
        _log.warning("the worker of an earlier service still lives (pid %d) and is killed", footprint.pid)
        try:
            await _kill(footprint.pid, handle, kill_s, on_stuck)
        finally:
            os.close(handle)
    remove_footprint(path)


async def _kill(pid: int, handle: int, kill_s: float, on_stuck: Callable[[int], None]) -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if not await wait_at_most(gone, kill_s):
            on_stuck(pid)
            await gone.wait()
    finally:
        loop.remove_reader(handle)


def _read_footprint(path: Path) -> Footprint | None:
    try:
        values = json.loads(path.read_bytes())
        return Footprint(int(values["pid"]), int(values["started"]), str(values["boot_id"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_process(footprint: Footprint) -> int | None:
    """A handle on that very process; None when it is gone, or its number is another's now."""
    try:
        handle = os.pidfd_open(footprint.pid)
    except OSError:
        return None
    # Only now: while the handle is open, the number cannot change its owner unnoticed between check and kill.
    if _find_footprint(footprint.pid) == footprint and os.getpgid(footprint.pid) == footprint.pid:
        return handle
    os.close(handle)
    return None


def _find_footprint(pid: int) -> Footprint | None:
    try:
        # The name in brackets may hold anything, so fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return Footprint(pid, int(fields[19]), _BOOT_ID.read_text().strip())
    except (OSError, ValueError, IndexError):
        return None
