"""When a worker counts as hung, with looks instead of time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.worker.board import Board, Mark
from daemon.worker.pulse import Deadlines, Pulse, count_bytes_read

DEADLINES = Deadlines(heartbeat_s=60, import_s=900, loading_s=1800, first_step_s=3600, step_s=100)


def patience_s(pulse: Pulse, phase: str, *, heard: bool = True) -> float:
    """Seconds until a worker that stands still in `phase` counts as hung; infinite after a week."""
    for waited_s in range(7 * 24 * 3600):
        if pulse.look(1.0, Mark(phase, 5, 1), heard=heard, bytes_read=0):
            return waited_s
    return float("inf")


@pytest.mark.parametrize(
    ("phase", "limit_s"), [("step", 100), ("first step", 3600), ("loading", 1800), ("something new", 1800)]
)
def test_each_phase_has_its_own_deadline(phase: str, limit_s: float) -> None:
    assert patience_s(Pulse(DEADLINES), phase) == limit_s


def test_a_worker_without_work_may_wait_for_ever() -> None:
    assert patience_s(Pulse(DEADLINES), "idle") == float("inf")


@pytest.mark.parametrize(("phase", "limit_s"), [("step", 60), ("idle", 60), ("import", 900), ("loading", 1800)])
def test_silence_is_suffered_longer_where_libraries_hold_the_interpreter(phase: str, limit_s: float) -> None:
    assert patience_s(Pulse(DEADLINES), phase, heard=False) == pytest.approx(limit_s, abs=2)


def test_the_deadline_moves_with_progress() -> None:
    pulse = Pulse(DEADLINES)
    for moves in range(100):
        assert not pulse.look(90.0, Mark("step", moves, moves), heard=True, bytes_read=0)


def test_reading_from_a_disk_is_progress() -> None:
    pulse = Pulse(DEADLINES)
    for read in range(100):
        assert not pulse.look(1700.0, Mark("loading", None, 1), heard=False, bytes_read=read)


def test_steps_that_always_take_long_may_take_longer_still() -> None:
    pulse = Pulse(DEADLINES)
    pulse.look(1.0, Mark("first step", 0, 1), heard=True, bytes_read=0)
    pulse.look(50.0, Mark("step", 1, 2), heard=True, bytes_read=0)
    assert patience_s(pulse, "step") == 10 * 50


def test_both_sides_of_the_board_see_the_same() -> None:
    ours = Board.make()
    theirs = Board(os.dup(ours.fd))
    theirs.enter("first step", None)
    before = ours.read()
    theirs.move(3)
    after = ours.read()
    assert (before.phase, before.step, after.phase, after.step) == ("first step", None, "first step", 3)
    assert after.moves == before.moves + 1
    ours.close()
    theirs.close()


def test_reading_is_counted_for_a_living_process_only(tmp_path: Path) -> None:
    assert count_bytes_read(os.getpid()) >= 0
    assert count_bytes_read(2**22 + 1) == 0
