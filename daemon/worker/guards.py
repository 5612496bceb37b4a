"""What a child process does to itself in its first lines, before anything heavy or foreign is touched.

Called by the worker and by the inspector. The invariant: no child outlives its supervisor, whatever kills the
supervisor and whatever the child is busy with.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_OOM_SCORE = 500
"""Added to the kernel's reckoning of whom to kill when memory runs out: the child rather than the supervisor."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that spawned it ends; end at once if it is gone already.

    The signal reaches a process that is inside C code and holds the interpreter lock. The spawning thread must be
    one that lives as long as its process: the supervisor's main thread.

    Args:
        parent: process id of the supervisor, as it told it on the command line.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(os.EX_UNAVAILABLE)


def renounce_privileges() -> None:
    """Let no program started from here gain rights (set-uid bits, file capabilities)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def be_killed_first() -> None:
    """Offer this process to the kernel when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {value}): {os.strerror(code)}")
