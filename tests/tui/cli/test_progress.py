"""Progress without a terminal: few lines, none missing that matters."""

from __future__ import annotations

import pytest

from tui.cli.progress import LineProgress, format_duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_fast_work_gives_its_first_and_last_line_and_at_most_one_in_two_seconds() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = LineProgress(lines.append, clock)
    for done in range(0, 101):
        clock.now = done * 0.05
        progress.update("training", done, 100)
    assert lines == [
        "training: 0 of 100 (0 %)",
        "training: 40 of 100 (40 %)",
        "training: 80 of 100 (80 %)",
        "training: 100 of 100 (100 %)",
    ]


def test_slow_work_gives_a_line_for_each_tenth_and_after_long_silence() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = LineProgress(lines.append, clock)
    for done, now in ((0, 0.0), (9, 29.0), (10, 29.5), (11, 58.0), (12, 60.0)):
        clock.now = now
        progress.update("training", done, 100, "loss 0.5")
    assert lines == [f"training: {done} of 100 ({done} %), loss 0.5" for done in (0, 10, 12)]


def test_nothing_is_told_before_the_total_is_known_or_twice() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append, Clock())
    for done, total in ((0, 0), (0, 5), (0, 5), (5, 5), (5, 5)):
        progress.update("sampling", done, total)
    assert lines == ["sampling: 0 of 5 (0 %)", "sampling: 5 of 5 (100 %)"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (7200, "2 h"), (-1, "0 s")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
