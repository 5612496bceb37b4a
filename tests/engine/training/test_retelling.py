"""Losses up to a checkpoint are told again by a run that goes on from it."""

from __future__ import annotations

from engine.events import CheckpointSaved, Event, Progress, Step
from engine.models.load import Model
from engine.training.job import TrainingJob
from tests.engine.training.conftest import MakeJob, of_kind, run_to_end, start


def leave_after_checkpoint(starter: Model, job: TrainingJob, step: int) -> list[Event]:
    """Drop a run as soon as it wrote this checkpoint; returns all that it told."""
    events, seen = start(starter, job), []
    for event in events:
        seen += [event] if event is not None else []
        if isinstance(event, CheckpointSaved) and event.step == step:
            events.close()  # type: ignore[attr-defined]
            return seen
    raise AssertionError("there was no such checkpoint")


def losses(events: list[Event]) -> list[Step]:
    return [step for event in of_kind(events, Progress) for step in event.losses]


def test_a_run_that_goes_on_tells_the_losses_since_the_checkpoint_before_again(
    starter: Model, make_job: MakeJob
) -> None:
    job = make_job()
    before = losses(leave_after_checkpoint(starter, job, 4))
    after = losses(run_to_end(starter, job))
    assert after[:2] == before[2:]
    assert [step.step for step in after] == [3, 4, 5, 6]


def test_a_run_that_goes_on_from_its_start_has_nothing_to_tell_again(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    leave_after_checkpoint(starter, job, 0)
    assert [step.step for step in losses(run_to_end(starter, job))] == [1, 2, 3, 4, 5, 6]
