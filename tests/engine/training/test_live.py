"""Runs whose pictures change while they train. The looks at the folder are taken where a test says, not by a clock."""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.dataset import latents as latents_module
from engine.dataset import lookout, survey
from engine.dataset.latents import Latents
from engine.dataset.survey import Offer, Stamps, Survey
from engine.errors import VocableError
from engine.events import DatasetChanged, Ended, Event, Prepared, Progress, Warned
from engine.models.load import Model
from engine.models.starter.sample import TRAIN_DIR
from engine.training import loop, report
from engine.training.batches import Batch
from engine.training.job import Control, TrainingJob
from engine.training.journal import JOURNAL, open_journal
from engine.training.loop import train
from engine.training.outputs import LOSS_TABLE
from engine.training.step import Learner, train_step
from tests.engine.training.conftest import MakeJob, Result, build_job, copy_pictures, of_kind, result, start

SAMPLES = sorted(TRAIN_DIR.glob("*.png"))
Script = dict[int, Callable[[Path], None]]
"""What happens to the folder, by the step that was told of last."""


class Looks:
    """A watch that looks when it is told to."""

    def __init__(self) -> None:
        self._offers: deque[Offer] = deque()
        self._survey: Survey | None = None
        self._now = 0.0

    def __call__(self, survey: Survey) -> Looks:
        self._survey = survey
        return self

    def look(self) -> None:
        """Look until all is settled, and what cannot be read is given up."""
        assert self._survey is not None
        for _ in range(3):
            self._now += 60
            self._offers += [offer for offer in self._survey.look(self._now) if offer is not None]

    def take(self) -> Offer | None:
        return self._offers.popleft() if self._offers else None

    def close(self) -> None:
        pass


def add(folder: Path, number: int, name: str = "") -> None:
    """Put sample `number` with its caption into the folder."""
    for path in (SAMPLES[number], SAMPLES[number].with_suffix(".txt")):
        shutil.copy(path, folder / f"{name or path.stem}{path.suffix}")


def remove(folder: Path, number: int) -> None:
    for path in folder.glob(f"{SAMPLES[number].stem}.*"):
        path.unlink()


def exchange(folder: Path) -> None:
    """Two pictures come, one goes."""
    add(folder, 4)
    add(folder, 5)
    remove(folder, 0)


def correct(folder: Path) -> None:
    """A caption is corrected by an editor that writes by renaming, a picture replaced, another renamed."""
    (folder / ".draft").write_text("quite another caption")
    (folder / ".draft").replace(folder / f"{SAMPLES[1].stem}.txt")
    shutil.copy(SAMPLES[6], folder / SAMPLES[2].name)
    for suffix in (".png", ".txt"):
        (folder / f"{SAMPLES[3].stem}{suffix}").rename(folder / f"zebra{suffix}")


SCRIPT: Script = {3: exchange, 8: correct}


def run(
    model: Model, job: TrainingJob, folder: Path, script: Script, *, kill_at: int = 0, look_at_once: bool = False
) -> list[Event]:
    """A run in whose folder things happen; with `kill_at` nothing of it is executed after that step was told of."""
    looks, clock, seen = Looks(), count(1_700_000_000), []
    events = train(model, job, control=Control(), words=lambda: [], clock=lambda: float(next(clock)), watch=looks)
    for event in events:
        if event is None:
            continue
        seen.append(event)
        if isinstance(event, Prepared) and look_at_once:
            looks.look()
        if isinstance(event, Progress):
            if event.step in script:
                script[event.step](folder)
                looks.look()
            if event.step == kill_at:
                events.close()  # type: ignore[attr-defined]
                return seen
    return seen


@pytest.fixture
def make_live(make_job: MakeJob) -> MakeJob:
    """Twelve steps, with a checkpoint after every fourth."""

    def make(name: str = "run", **settings: object) -> TrainingJob:
        return make_job(name, **{"train__steps": 12, "save__checkpoint_every": 4, **settings})

    return make


@pytest.fixture(scope="session")
def changed(
    starter: Model, latents: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, list[DatasetChanged]]:
    """What a run that is not disturbed makes of the script."""
    root = tmp_path_factory.mktemp("changed")
    folder = copy_pictures(root / "pictures")
    job = build_job(root, folder, latents, train__steps=12, save__checkpoint_every=4)
    events = run(starter, job, folder, SCRIPT)
    return result(job), of_kind(events, DatasetChanged)


def titles(events: list[Event]) -> list[str]:
    return [event.title for event in of_kind(events, DatasetChanged)]


def test_changes_count_from_the_next_epoch_on_and_are_told(changed: tuple[Result, list[DatasetChanged]]) -> None:
    (_, table), (first, second) = changed
    assert first == DatasetChanged(
        6, 5, "2 pictures new (0004.png, 0005.png), 1 removed (0000.png) from step 7 on; 5 in all."
    )
    assert second.title == (
        "1 picture replaced (0002.png), 1 renamed (0003.png is zebra.png), 1 caption changed (0001.png)"
        f" from step {second.after_step + 1} on; 5 in all."
    )
    epochs = [row.split(",")[1:3] for row in table.splitlines()[1:]]
    assert ["/".join(epoch) for epoch in epochs[:9]] == ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1", "3/0", "3/1", "3/2"]
    assert epochs[second.after_step] == [str(int(epochs[second.after_step - 1][0]) + 1), "0"]


@pytest.mark.parametrize("kill_at", [1, 7, 8, 10, 11])
def test_a_run_that_is_killed_shows_the_same_pictures_at_the_same_steps(
    starter: Model, make_live: MakeJob, dataset: Path, changed: tuple[Result, list[DatasetChanged]], kill_at: int
) -> None:
    job = make_live()
    run(starter, job, dataset, SCRIPT, kill_at=kill_at)
    rest = {step: change for step, change in SCRIPT.items() if step > kill_at}
    events = run(starter, job, dataset, rest, look_at_once=True)
    assert result(job) == changed[0]
    assert not of_kind(events, Warned)


def test_the_folder_is_not_needed_to_repeat_what_the_journal_says(
    starter: Model, make_live: MakeJob, dataset: Path, changed: tuple[Result, list[DatasetChanged]]
) -> None:
    job = make_live()
    run(starter, job, dataset, SCRIPT, kill_at=11)
    shutil.rmtree(job.folder / "checkpoints" / "000008")
    shutil.rmtree(dataset)
    events = run(starter, job, dataset, {})
    assert of_kind(events, Prepared)[0].step == 4
    assert result(job) == changed[0]
    assert not of_kind(events, Warned)


def test_what_the_folder_and_the_cache_have_lost_is_declared(
    starter: Model, make_live: MakeJob, dataset: Path, tmp_path: Path
) -> None:
    job = replace(make_live(), latents=tmp_path / "cache")
    run(starter, job, dataset, SCRIPT, kill_at=7)
    shutil.rmtree(job.latents)
    remove(dataset, 5)
    events = run(starter, replace(make_live(), latents=job.latents), dataset, {})
    (warning,) = of_kind(events, Warned)
    assert warning.code == "resume.changed"
    assert warning.title.startswith("Resumed, not bit-exact")
    for part in ("0000.png, 0005.png cannot be had any more", "0000.png is gone", "0004.png is new"):
        assert part in warning.title
    assert events[-1].outcome == "finished"


def test_a_picture_that_left_the_cache_is_found_under_another_name(
    starter: Model, make_live: MakeJob, dataset: Path, tmp_path: Path, changed: tuple[Result, list[DatasetChanged]]
) -> None:
    job = replace(make_live(), latents=tmp_path / "cache")
    run(starter, job, dataset, SCRIPT, kill_at=10)
    shutil.rmtree(job.latents)
    for number in (0, 2, 3):
        add(dataset, number, f"elsewhere {number}")
    assert not of_kind(run(starter, job, dataset, {}), Warned)
    assert result(job) == changed[0]


def test_only_what_is_new_is_encoded(
    starter: Model, make_live: MakeJob, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    real = latents_module.encode_picture

    def encode_picture(model: Model, image: Image.Image, name: str) -> Latents:
        encoded.append(name)
        return real(model, image, name)

    monkeypatch.setattr(latents_module, "encode_picture", encode_picture)
    job = replace(make_live(), latents=tmp_path / "cache")
    run(starter, job, dataset, SCRIPT)
    assert encoded == [f"000{number}.png" for number in (0, 1, 2, 3, 4, 5, 2)]


def test_what_happens_while_nothing_trains_counts_after_the_steps_that_were_done(
    starter: Model, make_live: MakeJob, dataset: Path
) -> None:
    job = make_live()
    run(starter, job, dataset, {}, kill_at=7)
    before = job.folder.joinpath(LOSS_TABLE).read_text().splitlines()
    exchange(dataset)
    (change,) = of_kind(run(starter, job, dataset, {}, look_at_once=True), DatasetChanged)
    assert change.after_step == 8
    assert job.folder.joinpath(LOSS_TABLE).read_text().splitlines()[: len(before)] == before


def test_a_set_that_changes_after_a_roll_back_is_the_same_after_a_resume_from_before_it(
    starter: Model, make_live: MakeJob, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the full rate, and shown what was there at first, updates 8 and 9 are not finite."""
    monkeypatch.setattr(report, "SKIPPED_IN_ROW", 2)
    shown: dict[int, tuple[str, ...]] = {}

    def step(model: Model, learner: Learner, batch: Batch, learn_rate: float) -> Tensor:
        is_first = shown.setdefault(batch.step, batch.texts) == batch.texts
        spoilt = is_first and learn_rate == 0.02 and batch.step in (7, 8)
        return train_step(
            model, learner, replace(batch, noisy=batch.noisy * torch.nan) if spoilt else batch, learn_rate
        )

    monkeypatch.setattr(loop, "train_step", step)
    straight, killed = (make_live(name, save__checkpoint_every=6) for name in ("straight", "killed"))
    (change,) = of_kind(run(starter, straight, dataset, {9: partial(remove, number=0)}), DatasetChanged)
    assert change.after_step == 10
    shutil.rmtree(dataset)
    copy_pictures(dataset)
    run(starter, killed, dataset, {9: partial(remove, number=0)}, kill_at=11)
    events = run(starter, killed, dataset, {}, look_at_once=True)
    assert of_kind(events, Prepared)[0].step == 6
    assert result(killed) == result(straight)


def test_a_dataset_that_is_not_live_stays_as_it_was(
    starter: Model, make_live: MakeJob, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0.01)
    job, live = make_live(data__live=False), make_live("live")
    list(start(starter, live))
    for event in start(starter, job):
        if isinstance(event, Prepared):
            exchange(dataset)
    assert not (job.folder / JOURNAL).exists()
    assert result(job) == result(live)


def test_a_journal_that_is_damaged_is_kept_and_declared(starter: Model, make_live: MakeJob, dataset: Path) -> None:
    job = make_live()
    run(starter, job, dataset, SCRIPT, kill_at=7)
    path = job.folder / JOURNAL
    path.write_bytes(path.read_bytes().replace(b"0004.png", b"0009.png"))
    events = run(starter, make_live(), dataset, {})
    (warning,) = of_kind(events, Warned)
    assert "line 2 of dataset.jsonl is damaged" in warning.title
    assert b"0009.png" in path.with_name("dataset-damaged-1.jsonl").read_bytes()
    assert list(open_journal(job.folder).records[-1].manifest) == [f"000{number}.png" for number in (1, 2, 3, 4, 5)]


def test_a_journal_that_is_gone_is_declared(starter: Model, make_live: MakeJob, dataset: Path) -> None:
    job = make_live()
    run(starter, job, dataset, SCRIPT, kill_at=10)
    (job.folder / JOURNAL).unlink()
    (warning,) = of_kind(run(starter, make_live(), dataset, {}), Warned)
    assert "dataset.jsonl is gone" in warning.title


def test_a_new_picture_with_a_caption_that_hides_the_word_is_left_out(
    starter: Model, make_live: MakeJob, dataset: Path, tmp_path: Path
) -> None:
    template = tmp_path / "joined.txt"
    template.write_text("[name][filewords]")
    for path in dataset.glob("*.txt"):
        path.write_text(", begins with a comma")

    def hide(folder: Path) -> None:
        add(folder, 4)
        (folder / "0004.txt").write_text("begins with a letter")

    events = run(starter, make_live(data__template=str(template)), dataset, {2: hide})
    (warning,) = of_kind(events, Warned)
    assert "does not hold the word" in warning.title
    assert not titles(events)


def test_a_new_picture_that_the_vae_overflows_on_is_left_out(
    starter: Model, make_live: MakeJob, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = latents_module.encode_picture

    def overflow(model: Model, image: Image.Image, name: str) -> Latents:
        if name == SAMPLES[4].name:
            raise VocableError("dataset.latents", "The VAE overflows.")
        return real(model, image, name)

    monkeypatch.setattr(latents_module, "encode_picture", overflow)
    job = replace(make_live(), latents=tmp_path / "cache")
    events = run(starter, job, dataset, {3: exchange})
    assert [warning.code for warning in of_kind(events, Warned)] == ["dataset.skipped"]
    assert titles(events) == ["1 picture new (0005.png), 1 removed (0000.png) from step 7 on; 4 in all."]


def test_a_folder_that_is_emptied_or_vanishes_does_not_end_the_run(
    starter: Model, make_live: MakeJob, dataset: Path
) -> None:
    def empty(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()

    events = run(starter, make_live(), dataset, {2: empty, 5: lambda folder: folder.rmdir()})
    assert [warning.code for warning in of_kind(events, Warned)] == ["dataset.missing"]
    assert not titles(events)
    assert isinstance(events[-1], Ended)


def test_a_thread_looks_at_the_folder_while_steps_are_done(
    starter: Model, make_live: MakeJob, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0.02)
    events = start(starter, make_live(train__steps=100_000, save__checkpoint_every=100_000))
    for event in events:
        if isinstance(event, Prepared):
            add(dataset, 4)
        if isinstance(event, DatasetChanged):
            break
    assert "lookout" in {thread.name for thread in threading.enumerate()}
    events.close()  # type: ignore[attr-defined]
    assert event is not None
    assert event.title.startswith("1 picture new (0004.png)")
    assert "lookout" not in {thread.name for thread in threading.enumerate()}


def test_a_folder_that_hangs_does_not_hold_the_training_up(
    starter: Model, make_live: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, released = threading.Event(), threading.Event()

    def hang(folder: Path) -> dict[str, Stamps]:
        hangs.set()
        released.wait()
        return {}

    monkeypatch.setattr(survey, "list_stamps", hang)
    monkeypatch.setattr(lookout, "CLOSE_S", 0.0)
    events = list(start(starter, make_live()))
    assert hangs.wait(30)
    assert isinstance(events[-1], Ended)
    released.set()
