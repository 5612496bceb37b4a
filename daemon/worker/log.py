"""The worker's log: what a worker printed and how it came and went, one line a record, in `state/worker.log`.

Written by the supervisor only, so that two generations of workers never share a file. The file is bounded: a full
one becomes `worker.log.1`.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from engine.text import escape

_MAX_BYTES = 4 << 20
_MAX_LINE = 2000
_BURST = 1000
_LINES_PER_S = 50.0


class WorkerLog:
    """Appends lines; a disk that takes none is no reason to stop supervising."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, pid: int, line: str) -> None:
        """Append one line with time (UTC) and process id; control characters are shown, not obeyed."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError):
            self._make_room()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{stamp} [{pid}] {escape(line, _MAX_LINE)}\n")

    def _make_room(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > _MAX_BYTES:
            os.replace(self.path, self.path.with_name(f"{self.path.name}.1"))


class LineCutter:
    """Makes lines of chunks of output as they come; progress bars (carriage returns) end a line too."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that ended, without empty ones; a line that grows too long is cut."""
        *lines, self._rest = (self._rest + data.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
        if len(self._rest) > _MAX_LINE:
            lines.append(self._rest)
            self._rest = ""
        return [line for line in lines if line.strip()]

    def finish(self) -> list[str]:
        """Return what came after the last line end."""
        rest, self._rest = self._rest, ""
        return [rest] if rest.strip() else []


class LineLimiter:
    """Lets lines through up to a rate, so that a library that floods its output neither fills the disk nor keeps the
    supervisor from its work; how many were left out is said as soon as there is room for saying it."""

    def __init__(self) -> None:
        self._room = float(_BURST)
        self._then_s = 0.0
        self._left_out = 0

    def admit(self, lines: list[str], now_s: float) -> list[str]:
        """Return the lines that may be written at `now_s`, seconds of a clock that never goes back."""
        self._room = min(_BURST, self._room + (now_s - self._then_s) * _LINES_PER_S)
        self._then_s = now_s
        fitting = lines[: int(self._room)]
        notes = self.finish() if fitting else []
        self._room -= len(fitting)
        self._left_out += len(lines) - len(fitting)
        return notes + fitting

    def finish(self) -> list[str]:
        """Return what is to be said of lines that were left out."""
        count, self._left_out = self._left_out, 0
        return [f"({count} lines were left out)"] if count else []
