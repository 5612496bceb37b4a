"""What a child process does to itself in its first lines, before anything heavy or foreign is touched.

Called by the worker and by the inspector. The invariant: no child outlives its supervisor, whatever kills the
supervisor and whatever the child is busy with.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from engine.processes import die_with_parent as die_with_parent
from engine.processes import prctl

_PR_SET_NO_NEW_PRIVS = 38

_OOM_SCORE = 500
"""Added to the kernel's reckoning of whom to kill when memory runs out: the child rather than the supervisor."""


def renounce_privileges() -> None:
    """Let no program started from here gain rights (set-uid bits, file capabilities)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def be_killed_first(score: int = _OOM_SCORE) -> None:
    """Offer this process, and those it starts from now on, to the kernel when memory runs out; at most 1000."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))
