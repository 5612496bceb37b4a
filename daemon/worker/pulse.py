"""When a worker counts as hung: the three signs of life, and how long each phase may go without them.

Used by supervise, which looks once in a while and tells what it saw; the process itself, the first sign, it watches on
its own. The invariant: work that moves, however slowly, is never taken for hung.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from daemon.worker.board import IDLE, Mark

SLACK = 10.0
"""A phase may stand still for so many times its longest pause so far, when that is more than its deadline."""

_NATIVE = frozenset({"import", "loading"})
"""Phases in which libraries are linked and devices opened by code that may hold the interpreter for minutes, so that
no heartbeat comes; only their own deadline counts."""


_Seconds = Annotated[float, Field(ge=1, le=10**9)]


class Deadlines(BaseModel):
    """How long a worker may go without a sign of life, in seconds. The defaults are generous: the first step on a
    device may compile for minutes, and a model may come over a slow network."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    heartbeat_s: _Seconds = 60
    """Without a heartbeat, which comes twice a second: Python itself hangs."""
    import_s: _Seconds = 900
    """From its start until it takes work."""
    loading_s: _Seconds = 1800
    """Loading a model, from one piece read from the disk to the next."""
    encoding_s: _Seconds = 900
    """Encoding pictures, from one to the next."""
    first_step_s: _Seconds = 3600
    """The first step of a run, for which kernels may be chosen or compiled."""
    step_s: _Seconds = 900
    """Each further step, with the copy and the checkpoint that are due after it."""
    preview_s: _Seconds = 900
    """A preview, from one sampling step to the next."""
    saving_s: _Seconds = 900
    """Writing the finished word."""
    job_s: _Seconds = 1800
    """A job, from one unit of it to the next; a model may be loaded in between."""

    def of(self, phase: str) -> float | None:
        """The deadline for the next move within `phase`; None when none is expected."""
        if phase == IDLE:
            return None
        value: float = getattr(self, f"{phase.replace(' ', '_')}_s", self.job_s)
        return value


class Pulse:
    """Adds up how long each sign has been missing. Time is what the looks say that they waited, so a supervisor that
    was itself stopped for a while (suspend, SIGSTOP) does not take its worker for hung."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._silent_s = 0.0
        self._still_s = 0.0
        self._mark = Mark("", None, -1)
        self._bytes_read = 0
        self._longest_s: dict[str, float] = {}

    def look(self, waited_s: float, mark: Mark, *, heard: bool, bytes_read: int) -> str:
        """Take one look at the worker.

        Args:
            waited_s: since the look before.
            heard: whether a message came since then.
            bytes_read: what the process has read from disks in its life; while that grows, it moves.

        Returns:
            Why the worker counts as hung, as the beginning of a sentence; empty while it does not.
        """
        self._silent_s = 0.0 if heard else self._silent_s + waited_s
        if (mark, bytes_read) == (self._mark, self._bytes_read):
            self._still_s += waited_s
        else:
            self._note_move(mark, waited_s)
            self._mark, self._bytes_read, self._still_s = mark, bytes_read, 0.0
        limit_s = self._limit_s(mark.phase)
        if self._silent_s >= self._deadlines.heartbeat_s and mark.phase not in _NATIVE:
            return f"The worker gave no sign of life for {self._silent_s:.0f} s"
        if limit_s is not None and self._still_s >= limit_s:
            return f"The worker made no progress for {self._still_s:.0f} s"
        return ""

    def _note_move(self, mark: Mark, waited_s: float) -> None:
        paused_s = self._still_s + waited_s
        before = self._mark.phase
        if before == mark.phase or (before, mark.phase) == ("first step", "step"):
            self._longest_s[mark.phase] = max(paused_s, self._longest_s.get(mark.phase, 0.0))

    def _limit_s(self, phase: str) -> float | None:
        limit_s = self._deadlines.of(phase)
        return None if limit_s is None else max(limit_s, SLACK * self._longest_s.get(phase, 0.0))


def count_bytes_read(pid: int) -> int:
    """Bytes that the process had read from disks, those behind mapped files included; 0 where nobody says."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))
    except (OSError, ValueError, StopIteration):
        return 0
