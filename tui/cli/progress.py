"""Progress on stderr: a bar on a terminal, now and then a plain line anywhere else.

Used by every command that waits. `open_progress` chooses; both kinds take the same calls.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from tui.cli.output import say

if TYPE_CHECKING:
    import rich.progress

_LEAST_INTERVAL_S = 2.0
_LEAST_SHARE = 0.1
_LONGEST_SILENCE_S = 30.0


class Progress(Protocol):
    """What a waiting command tells while it waits."""

    def update(self, label: str, done: int, total: int, detail: str = "") -> None:
        """Say how far it is; `total` 0 means that it is not known yet."""

    def say(self, text: str) -> None:
        """Tell something that stays on the screen."""


@contextmanager
def open_progress() -> Iterator[Progress]:
    """A bar when stderr is a terminal that can redraw a line, else plain lines."""
    if not sys.stderr.isatty():
        yield LineProgress(say)
        return
    import rich.progress
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_dumb_terminal:
        yield LineProgress(say)
        return
    bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(bar_width=16),
        rich.progress.TextColumn("{task.fields[count]}", markup=False),
        rich.progress.TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        yield BarProgress(bar)


class LineProgress:
    """At most one line in two seconds, one for every tenth of the work, and one when it was silent for long."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._label = ""
        self._done = 0
        self._at = float("-inf")

    def update(self, label: str, done: int, total: int, detail: str = "") -> None:
        if total and self._is_due(label, done, total):
            self._label, self._done, self._at = label, done, self._clock()
            share = f" ({100 * done // total} %)"
            self._write(f"{label}: {done} of {total}{share}{', ' if detail else ''}{detail}")

    def say(self, text: str) -> None:
        self._write(text)

    def _is_due(self, label: str, done: int, total: int) -> bool:
        if label != self._label:
            return True
        if done == self._done:
            return False
        waited = self._clock() - self._at
        moved = (done - self._done) / total
        return done >= total or waited >= _LONGEST_SILENCE_S or (waited >= _LEAST_INTERVAL_S and moved >= _LEAST_SHARE)


class BarProgress:
    """One line of the terminal, drawn again and again."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, visible=False, count="", detail="")

    def update(self, label: str, done: int, total: int, detail: str = "") -> None:
        count = f"{done}/{total}" if total else ""
        self._bar.update(
            self._task, description=label, completed=done, total=total or None, visible=True, count=count, detail=detail
        )

    def say(self, text: str) -> None:
        from rich.text import Text

        self._bar.console.print(Text(text), soft_wrap=True)


def format_duration(seconds: float) -> str:
    """A duration as people say it: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
