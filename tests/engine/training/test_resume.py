from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import VocableError
from engine.events import Ended, Event, Prepared, Progress, Warned
from engine.models.load import Model
from engine.training import prepare
from engine.training.job import Control, TrainingJob
from engine.training.machine import read_driver
from tests.engine.training.conftest import MakeJob, Result, of_kind, result, run_to_end, start


def until_step(events: Iterator[Event | None], step: int) -> list[Event]:
    """Drive a run until it told of `step`."""
    seen: list[Event] = []
    for event in events:
        if event is not None:
            seen.append(event)
        if isinstance(event, Progress) and event.step >= step:
            return seen
    raise AssertionError(f"the run ended before step {step}")


def kill_at(starter: Model, job: TrainingJob, step: int) -> None:
    """Drop a run right after `step`, as a kill does: nothing more of it is executed that writes."""
    events = start(starter, job)
    until_step(events, step)
    events.close()  # type: ignore[attr-defined]


def pause_at(starter: Model, job: TrainingJob, step: int) -> list[Event]:
    control = Control()
    events = start(starter, job, control)
    seen = until_step(events, step)
    control.ask = "pause"
    return seen + [event for event in events if event is not None]


@pytest.mark.parametrize("images_every", [0, 3])
@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("leave", [kill_at, pause_at])
def test_a_run_that_goes_on_at_any_step_equals_the_undisturbed_one(
    starter: Model,
    make_job: MakeJob,
    straight: Result,
    leave: Callable[[Model, TrainingJob, int], Any],
    step: int,
    images_every: int,
) -> None:
    job = make_job(save__images_every=images_every)
    leave(starter, job, step)
    events = run_to_end(starter, job)
    (prepared,) = of_kind(events, Prepared)
    assert prepared.step == (step if leave is pause_at else (step - 1) // 2 * 2)
    assert result(job) == straight
    assert not of_kind(events, Warned)


def test_batches_that_span_epochs_resume_exactly(starter: Model, make_job: MakeJob) -> None:
    straight, broken = (make_job(run, train__batch_size=3, save__checkpoint_every=1) for run in ("a", "b"))
    run_to_end(starter, straight)
    kill_at(starter, broken, 3)
    run_to_end(starter, broken)
    assert result(straight) == result(broken)


def test_a_kill_between_an_update_and_its_checkpoint_does_the_update_again(
    starter: Model, make_job: MakeJob, straight: Result
) -> None:
    job = make_job()
    kill_at(starter, job, 4)
    assert sorted(path.name for path in (job.folder / "checkpoints").iterdir()) == ["000000", "000002"]
    assert of_kind(run_to_end(starter, job), Prepared)[0].step == 2
    assert result(job) == straight


def test_a_run_that_is_killed_after_each_of_its_steps_equals_the_undisturbed_one(
    starter: Model, make_job: MakeJob, straight: Result
) -> None:
    job = make_job(save__checkpoint_every=1)
    for step in range(1, 7):
        kill_at(starter, job, step)
    run_to_end(starter, job)
    assert result(job) == straight


@pytest.mark.slow
@pytest.mark.parametrize("images_every", [0, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_run_of_sixty_steps_goes_on_exactly_from_every_one_of_them(
    starter: Model, make_job: MakeJob, batch_size: int, images_every: int
) -> None:
    def job(run: str, images_every: int) -> TrainingJob:
        return make_job(
            run,
            train__steps=60,
            train__batch_size=batch_size,
            save__checkpoint_every=8,
            save__images_every=images_every,
        )

    straight = job("straight", 0)
    run_to_end(starter, straight)
    for step in range(1, 60):
        broken = job(f"broken-{step}", images_every)
        (pause_at if step % 2 else kill_at)(starter, broken, step)
        run_to_end(starter, broken)
        assert result(broken) == result(straight)


def test_other_work_on_the_device_between_steps_changes_nothing(
    starter: Model, make_job: MakeJob, straight: Result
) -> None:
    job = make_job()
    for _ in start(starter, job):
        torch.randn(3)
        with torch.no_grad():
            starter.unet(torch.randn(1, 4, 16, 16), 1, torch.randn(1, 77, starter.entry.width))
    assert result(job) == straight


def test_a_damaged_checkpoint_is_set_aside_and_an_older_one_used(
    starter: Model, make_job: MakeJob, straight: Result
) -> None:
    job = make_job()
    kill_at(starter, job, 5)
    state = job.folder / "checkpoints" / "000004" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"!")
    events = run_to_end(starter, job)
    assert [event.code for event in of_kind(events, Warned)] == ["checkpoint.damaged"]
    assert of_kind(events, Prepared)[0].step == 2
    assert len(list((job.folder / "checkpoints" / "quarantine").iterdir())) == 1
    assert result(job) == straight


def test_what_changed_since_the_checkpoint_is_declared(starter: Model, make_job: MakeJob, dataset: Path) -> None:
    make_job = partial(make_job, data__live=False)
    pause_at(starter, make_job(), 2)
    first, second, *_ = sorted(dataset.glob("*.png"))
    first.unlink()
    second.with_suffix(".txt").write_text("another caption")
    events = run_to_end(starter, make_job(train__learn_rate="0.001"))
    (warning,) = of_kind(events, Warned)
    assert warning.code == "resume.changed"
    for part in (f"{first.name} is gone", f"{second.name} or its caption", "train.learn_rate (0.02 became 0.001)"):
        assert part in warning.title
    assert of_kind(events, Ended)[0].outcome == "finished"


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("describe_libraries", {"torch": "1.0"}, "torch ("),
        ("describe_machine", {"device": "Some GPU"}, "device (cpu became Some GPU)"),
        ("describe_machine", {"threads": 96}, "became 96)"),
    ],
)
def test_another_library_or_machine_is_declared(
    starter: Model, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any], told: str
) -> None:
    pause_at(starter, make_job(), 2)
    real = getattr(prepare, name)
    monkeypatch.setattr(prepare, name, lambda *arguments: real(*arguments) | change)
    (warning,) = of_kind(run_to_end(starter, make_job()), Warned)
    assert warning.code == "resume.changed"
    assert warning.title.startswith("Resumed, not bit-exact")
    assert told in warning.title


def test_a_checkpoint_of_another_shape_is_refused_and_kept(starter: Model, make_job: MakeJob) -> None:
    pause_at(starter, make_job(), 2)
    job = make_job(start__vectors=3)
    with pytest.raises(VocableError) as caught:
        run_to_end(starter, job)
    assert caught.value.code == "resume.impossible"
    assert (job.folder / "checkpoints" / "000002" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("something else", ""),
    ],
)
def test_the_driver_is_read_from_its_own_line(tmp_path: Path, line: str, driver: str) -> None:
    (tmp_path / "version").write_text(line + "\nGCC version:  gcc version 12.2.0 \n")
    assert read_driver(tmp_path / "version") == driver


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert read_driver(tmp_path / "missing") == ""


def test_a_paused_run_leaves_no_word_and_a_checkpoint_of_its_step(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    events = pause_at(starter, job, 3)
    assert events[-1] == Ended("paused", 3, "")
    assert not job.destination.exists()
    assert (job.folder / "checkpoints" / "000003" / "manifest.json").exists()
