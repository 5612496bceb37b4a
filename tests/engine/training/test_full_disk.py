"""A run on a real disk that fills up: it ends with `disk.full`, keeps what it has, and goes on when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.embedding.read import read_embedding
from engine.errors import VocableError
from engine.events import Prepared, Progress
from engine.models.load import Model
from engine.training.checkpoint import load_newest
from engine.training.job import TrainingJob
from tests.engine.training.conftest import MakeJob, Result, of_kind, result, run_to_end, start
from tests.mounts import MIB, fill, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 24 * MIB) as folder:
        yield folder


def train_until_full(model: Model, job: TrainingJob, disk: Path, *, step: int, leave: int) -> Path:
    """Train while the disk fills up, but for so many bytes, after `step`; returns what fills it."""
    events = start(model, job)
    next(event for event in events if isinstance(event, Progress) and event.step == step)
    filler = fill(disk, leave=leave)
    with pytest.raises(VocableError) as caught:
        list(events)
    assert caught.value.code == "disk.full"
    return filler


@pytest.mark.parametrize("leave", [0, MIB])
@pytest.mark.parametrize("step", [1, 5])
def test_a_run_goes_on_to_the_same_numbers_when_there_is_room_again(
    starter: Model, make_job: MakeJob, straight: Result, disk: Path, step: int, leave: int
) -> None:
    job = replace(make_job(), folder=disk / "run")
    filler = train_until_full(starter, job, disk, step=step, leave=leave)
    kept, damaged = load_newest(job.folder / "checkpoints")
    assert kept is not None
    assert (kept.step, damaged) == ((step - 1) // 2 * 2, ())
    assert not job.destination.exists()
    filler.unlink()
    events = run_to_end(starter, job)
    assert of_kind(events, Prepared)[0].step == kept.step
    assert result(job) == straight


def test_a_full_embeddings_folder_leaves_the_older_word(starter: Model, make_job: MakeJob, disk: Path) -> None:
    job = replace(make_job(train__steps=2), destination=disk / "mia.safetensors")
    run_to_end(starter, job)
    older = job.destination.read_bytes()
    longer = replace(make_job("longer", train__steps=4), destination=job.destination)
    filler = train_until_full(starter, longer, disk, step=3, leave=0)
    assert job.destination.read_bytes() == older
    filler.unlink()
    run_to_end(starter, longer)
    assert read_embedding(job.destination.read_bytes(), "mia").step == 4
