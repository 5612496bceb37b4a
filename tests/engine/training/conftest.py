"""Short runs on the starter model: a dataset of four sample pictures and one cache of latents for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine.events import Event
from engine.models.load import Model
from engine.models.starter.sample import INIT_WORD, TRAIN_DIR
from engine.preflight import check_recipe
from engine.recipe import build_recipe
from engine.training.job import Control, TrainingJob
from engine.training.loop import train
from engine.training.outputs import LOSS_TABLE

MakeJob = Callable[..., TrainingJob]
Result = tuple[bytes, str]


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latents")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four pictures with captions, free to be changed."""
    return copy_pictures(tmp_path / "pictures")


@pytest.fixture
def make_job(tmp_path: Path, dataset: Path, latents: Path) -> MakeJob:
    """Make a job of six steps; settings are `group__field=value`, `run` names its folder."""
    return partial(build_job, tmp_path, dataset, latents)


@pytest.fixture(scope="session")
def straight(starter: Model, latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The result of an undisturbed run without previews."""
    root = tmp_path_factory.mktemp("straight")
    job = build_job(root, copy_pictures(root / "pictures"), latents)
    run_to_end(starter, job)
    return result(job)


def copy_pictures(folder: Path) -> Path:
    folder.mkdir()
    for picture in sorted(TRAIN_DIR.glob("*.png"))[:4]:
        for path in (picture, picture.with_suffix(".txt")):
            shutil.copy(path, folder)
    return folder


def build_job(root: Path, dataset: Path, latents: Path, run: str = "run", **settings: Any) -> TrainingJob:
    values: dict[str, dict[str, Any]] = {
        "start": {"init_text": INIT_WORD, "vectors": 2},
        "data": {"folder": str(dataset), "template": "portrait_filewords"},
        "train": {"learn_rate": "0.02", "steps": 6, "batch_size": 2},
        "save": {"every": 0, "images_every": 0, "checkpoint_every": 2},
        "preview": {"steps": 1, "cfg_scale": 1},
    }
    for name, value in settings.items():
        group, field = name.split("__")
        values[group][field] = value
    recipe = build_recipe({"name": "mia", **values})
    resolved = check_recipe(recipe, models=[], datasets=[], templates=[])
    return TrainingJob(recipe, resolved, root / run, latents, root / run / "words" / "mia.safetensors")


def start(model: Model, job: TrainingJob, control: Control | None = None) -> Iterator[Event | None]:
    """A run whose clock moves a second with every look, so that each step is told of."""
    seconds = count(1_700_000_000)
    return train(model, job, control=control or Control(), words=lambda: [], clock=lambda: float(next(seconds)))


def run_to_end(model: Model, job: TrainingJob) -> list[Event]:
    return [event for event in start(model, job) if event is not None]


def of_kind(events: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def result(job: TrainingJob) -> Result:
    """The trained vectors, without the header in which the recipe stands, and the table of losses."""
    data = job.destination.read_bytes()
    header = int.from_bytes(data[:8], "little")
    return data[8 + header :], (job.folder / LOSS_TABLE).read_text()
