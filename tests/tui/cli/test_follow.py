"""What is told of a run is the difference of two views, once each."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.protocol.runs import RunView
from tui.cli.follow import changes, report_end
from tui.cli.output import DONE, FAILED


def view(**values: Any) -> RunView:
    base = {"id": "k3x9ab", "name": "zara", "model": "starter", "state": "running", "steps": 100, "folder": "/w/runs/z"}
    return RunView.model_validate({**base, "created_at": 0.0, **values})


def test_the_first_view_tells_the_state() -> None:
    assert changes(None, view(state="queued")) == ["zara (k3x9ab) is queued."]


def test_an_unchanged_view_tells_nothing() -> None:
    now = view(step=10, preview="/p.png", preview_step=10, warnings=[{"code": "a", "title": "B."}])
    assert changes(now, now.model_copy(update={"step": 11})) == []


def test_previews_warnings_and_restarts_are_told_once_each() -> None:
    warned = {"code": "dataset.unreadable", "title": "x.png is left out.", "hint": "Replace it."}
    after = view(preview="/p.png", preview_step=50, warnings=[warned], restarts=1)
    assert changes(view(), after) == [
        "The worker was lost; zara goes on from its newest checkpoint.",
        "preview at step 50: /p.png",
        "warning: x.png is left out. Replace it.",
    ]
    assert changes(after, after) == []


def test_a_pause_says_how_to_go_on() -> None:
    assert "vocable resume k3x9ab" in changes(view(), view(state="paused", step=40))[0]


def command(*words: str) -> str:
    return " ".join(("vocable", *words))


def test_a_failed_run_is_never_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    error = {"code": "train.nan", "title": "The loss is not finite.", "hint": "Lower the learning rate."}
    assert report_end(view(state="failed", step=7, error=error), command) == FAILED
    talk = capsys.readouterr()
    assert talk.out == ""
    assert talk.err.splitlines()[:2] == ["error: The loss is not finite.", "hint: Lower the learning rate."]
    assert "vocable resume k3x9ab" in talk.err


def test_a_finished_run_says_how_to_use_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    ended = view(
        state="finished",
        step=100,
        mean_loss=0.25,
        started_at=10,
        ended_at=75,
        embedding="/w/embeddings/zara.safetensors",
    )
    assert report_end(ended, command) == DONE
    talk = capsys.readouterr().err
    assert "zara finished after 100 of 100 steps in 1 min 5 s, mean loss 0.2500." in talk
    assert "vocable generate portrait of zara" in talk


def test_a_change_of_the_pictures_is_told_once() -> None:
    after = view(dataset_change="2 pictures new (a.png, b.png) from step 121 on; 9 in all.")
    assert changes(view(), after) == ["dataset: 2 pictures new (a.png, b.png) from step 121 on; 9 in all."]
    assert changes(after, after) == []
