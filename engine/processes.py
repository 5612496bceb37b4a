"""What a child process asks of the kernel in its first lines, and what it makes of itself.

Called by every child of the program: worker, inspector, the processes that prepare pictures. Linux.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that spawned it ends; end at once if it is gone already.

    The signal reaches a process that is inside C code and holds the interpreter lock. The spawning thread must be
    one that lives as long as the child is needed, such as its process's main thread.

    Args:
        parent: id of the process that spawned this one, as it told it on the command line.
    """
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(os.EX_UNAVAILABLE)


def prctl(option: int, value: int) -> None:
    """Set one of the kernel's switches for this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {value}): {os.strerror(code)}")
