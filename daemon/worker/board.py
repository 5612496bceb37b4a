"""What the worker is doing, in memory that it shares with the supervisor: phase, step, and a count that only grows.

The worker's main thread writes, the supervisor reads, also after a crash, when no message comes any more. Neither side
waits for the other. The invariant: whenever work got on, `moves` is another number than before.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

IDLE = "idle"
"""Phase of a worker that waits for work; nothing is expected of it."""

JOB = "job"
"""Phase of pictures, evaluations and new words, alone or between two steps of a run."""

_LAYOUT = struct.Struct("<Qq32s")
_NO_STEP = -1


@dataclass(frozen=True)
class Mark:
    """One look at the board."""

    phase: str
    step: int | None
    """Steps that the run at hand has done; None without a run, or before it knows."""
    moves: int


NOWHERE = Mark("", None, 0)


class Board:
    """Shared memory behind a file descriptor; `Board.make()` in the supervisor, `Board(fd)` in the worker."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, _LAYOUT.size)

    @classmethod
    def make(cls) -> Board:
        fd = os.memfd_create("vocable-board")
        os.ftruncate(fd, _LAYOUT.size)
        return cls(fd)

    def enter(self, phase: str, step: int | None) -> None:
        """Say that a phase begins."""
        self._write(phase, step)

    def move(self, step: int | None = None) -> None:
        """Say that the work got on; `step` only when it changed."""
        mark = self.read()
        self._write(mark.phase, mark.step if step is None else step)

    def read(self) -> Mark:
        moves, step, phase = _LAYOUT.unpack_from(self._memory)
        return Mark(phase.rstrip(b"\0").decode("ascii", "replace"), None if step == _NO_STEP else step, moves)

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)

    def _write(self, phase: str, step: int | None) -> None:
        moves = self.read().moves + 1
        _LAYOUT.pack_into(self._memory, 0, moves, _NO_STEP if step is None else step, phase.encode("ascii")[:32])
