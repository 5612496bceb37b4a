from __future__ import annotations

import pytest

from daemon.protocol.runs import RunView
from daemon.protocol.service import State, StreamLine, WorkerView
from tests.tui.fake_daemon import make_run
from tui.glyphs import ASCII
from tui.store import (
    STALLED_AFTER_S,
    Outdated,
    View,
    apply_line,
    describe_state,
    is_stalled,
    put_run,
    view_snapshot,
)


def view_of(*runs: RunView) -> View:
    return view_snapshot(State(boot_id="b", seq=0, runs=list(runs), words=[], worker=WorkerView()), now=100.0)


def line(topic: str, data: dict[str, object]) -> StreamLine:
    return StreamLine(type="fact", seq=1, topic=topic, data=data)


def ids(view: View) -> list[str]:
    return [run.id for run in view.runs]


def test_running_runs_come_first_then_the_queue_then_the_newest_ended() -> None:
    view = view_of(
        make_run("old", "a", state="finished", ended_at=10.0),
        make_run("new", "b", state="failed", ended_at=20.0),
        make_run("q1", "c", state="queued"),
        make_run("q2", "d", state="paused"),
        make_run("on", "e"),
    )
    assert ids(view) == ["on", "q1", "q2", "new", "old"]


def test_a_new_run_goes_to_the_end_of_the_queue_and_a_resumed_one_to_its_head() -> None:
    view = view_of(make_run("on", "a"), make_run("q1", "b", state="queued"), make_run("s", "c", state="stopped"))
    view = put_run(view, make_run("q2", "d", state="queued"), 101.0)
    assert ids(view) == ["on", "q1", "q2", "s"]
    view = put_run(view, make_run("s", "c", state="queued"), 102.0)
    assert ids(view) == ["on", "s", "q1", "q2"]


def test_a_line_changes_one_run_and_leaves_the_old_view_alone() -> None:
    before = view_of(make_run("on", "a", step=1))
    after = apply_line(before, line("progress", make_run("on", "a", step=2).model_dump()), 105.0)
    assert before.runs[0].step == 1
    assert after.runs[0].step == 2
    assert after.as_of == 105.0


def test_removal_worker_and_problem_are_taken_over() -> None:
    view = view_of(make_run("on", "a"), make_run("q", "b", state="queued"))
    assert ids(apply_line(view, line("run.removed", {"id": "q"}), 1.0)) == ["on"]
    assert apply_line(view, line("worker", {"state": "busy", "device": "cuda"}), 1.0).worker.device == "cuda"
    assert apply_line(view, line("problem", {"problem": "The disk is full."}), 1.0).problem == "The disk is full."


def test_a_line_that_makes_no_sense_asks_for_a_snapshot() -> None:
    with pytest.raises(Outdated):
        apply_line(view_of(), line("run", {"id": 7}), 1.0)
    with pytest.raises(Outdated):
        apply_line(view_of(), line("run.removed", {}), 1.0)


def test_topics_of_a_newer_service_are_passed_over() -> None:
    assert ids(apply_line(view_of(make_run("on", "a")), line("weather", {"rain": 1}), 1.0)) == ["on"]


def test_a_run_without_a_sign_of_life_is_stalled_until_it_moves() -> None:
    view = view_of(make_run("on", "a", step=5))
    late = 100.0 + STALLED_AFTER_S + 1
    assert not is_stalled(view, view.runs[0], late - 2)
    assert is_stalled(view, view.runs[0], late)
    same = put_run(view, make_run("on", "a", step=5), late)
    assert is_stalled(same, same.runs[0], late)
    moved = put_run(view, make_run("on", "a", step=6), late)
    assert not is_stalled(moved, moved.runs[0], late)
    assert not is_stalled(put_run(view, make_run("on", "a", state="paused"), late), view.runs[0], 100.0)


def test_a_state_is_a_glyph_and_a_word_and_shows_what_is_about_to_happen() -> None:
    run = make_run("on", "a")
    assert describe_state(run, ASCII) == "> running"
    assert describe_state(run, ASCII, stalled=True) == "> stalled?"
    assert describe_state(run.model_copy(update={"asked": "pause"}), ASCII) == "> pausing.."
    assert describe_state(run, ASCII, sending="stop") == "> sending.."
