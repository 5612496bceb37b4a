"""How a worker ended, in words: exit codes, signals, the kernel's memory killer. Called by supervise only."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_NATIVE = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
"""Signals that a process brings upon itself by a fault in compiled code."""


@dataclass(frozen=True)
class WorkerExit:
    """The end of one worker process."""

    kind: Literal["asked", "exit", "signal", "hung"]
    """asked: it was told to end and did. exit: it left by itself, with any code, 0 included. signal: a signal ended
    it, or the supervisor did because its messages made no sense. hung: it gave no sign of life and was killed."""
    code: int
    """Exit code (asked, exit) or number of the signal (signal, hung)."""
    title: str
    """One sentence for people, terminal-safe."""


def describe_exit(returncode: int, *, last_words: str, memory_kills: int) -> WorkerExit:
    """Say what an unexpected end was.

    Args:
        returncode: as subprocesses report it, negative for a signal.
        last_words: the last line the process wrote, escaped; may be empty.
        memory_kills: how many processes the kernel killed for want of memory during its life.
    """
    said = f" Its last words: {last_words}" if last_words else ""
    if returncode >= 0:
        return WorkerExit("exit", returncode, f"The worker ended by itself with exit code {returncode}.{said}")
    number = -returncode
    name = signal_name(number)
    if number in _NATIVE:
        title = f"The worker crashed in native code ({name}).{said}"
    elif number == signal.SIGKILL and memory_kills > 0:
        title = f"The worker was killed ({name}), probably by the kernel because memory ran out."
    else:
        title = f"The worker was killed from outside ({name})."
    return WorkerExit("signal", number, title)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def count_memory_kills() -> int:
    """Processes that the kernel has killed for want of memory since boot; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
