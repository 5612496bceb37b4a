from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.embedding.create import create_embedding
from engine.embedding.read import read_embedding
from engine.embedding.shelf import shelve
from engine.errors import VocableError
from engine.events import CopySaved, Ended, Event, Prepared, PreviewSaved, Progress, Warned
from engine.models.catalog import ModelEntry
from engine.models.load import Model, load_model
from engine.recipe import parse_recipe
from engine.training import preview, report
from engine.training.evaluate import evaluate
from engine.training.job import Control
from engine.training.outputs import LOSS_TABLE
from tests.engine.training.conftest import MakeJob, of_kind, run_to_end, start

OddUnet = Callable[..., Any]


def fingerprint(model: Model) -> dict[str, str]:
    """Hash of every tensor of the model."""
    return {
        f"{part}.{name}": hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for part in ("text_encoder", "unet", "vae")
        for name, tensor in getattr(model, part).state_dict().items()
    }


def parameters(model: Model) -> Iterator[Tensor]:
    for part in (model.text_encoder, model.unet, model.vae):
        yield from part.parameters()


def with_unet(model: Model, change: Callable[[int, Tensor], Tensor]) -> Model:
    """The model with a U-Net whose output `change(call, output)` alters; calls count from 1."""
    calls = iter(range(1, 10_000))

    def unet(*arguments: Any, **named: Any) -> SimpleNamespace:
        return SimpleNamespace(sample=change(next(calls), model.unet(*arguments, **named).sample))

    return replace(model, unet=unet)


def fail_in(model: Model, job: Any) -> VocableError:
    with pytest.raises(VocableError) as caught:
        run_to_end(model, job)
    return caught.value


def losses_of(events: list[Event]) -> list[float | None]:
    return [step.loss for event in of_kind(events, Progress) for step in event.losses]


def codes(events: list[Event]) -> list[str]:
    return [event.code for event in of_kind(events, Warned)]


def test_training_lowers_the_loss_and_writes_the_word(starter: Model, make_job: MakeJob, dataset: Path) -> None:
    job = make_job(train__steps=20, save__checkpoint_every=20)
    events = run_to_end(starter, job)
    assert events[-1] == Ended("finished", 20, str(job.destination))
    word = read_embedding(job.destination.read_bytes(), "mia")
    assert (word.name, word.step, word.model_hash) == ("mia", 20, starter.entry.hash)
    assert parse_recipe(word.metadata["vocable.recipe"]) == job.recipe
    *_, (before, after) = evaluate(
        starter,
        folder=dataset,
        lines=job.resolved.lines,
        phrases=[job.recipe.start.init_text, "mia"],
        words=[shelve(word)],
        width=64,
        height=64,
        seed=1,
        timesteps=5,
        noises=1,
        latents=job.latents,
    )
    assert after < before


def test_every_loss_is_told_once_and_stands_in_the_table(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    told = [step for event in of_kind(run_to_end(starter, job), Progress) for step in event.losses]
    assert [step.step for step in told] == [1, 2, 3, 4, 5, 6]
    rows = (job.folder / LOSS_TABLE).read_text().splitlines()[1:]
    assert [row.split(",")[3] for row in rows] == [f"{step.loss:.7f}" for step in told]


def test_only_the_vectors_change_and_nothing_else_ever_has_a_gradient(starter: Model, make_job: MakeJob) -> None:
    before = fingerprint(starter)
    job = make_job(save__images_every=3)
    for _ in start(starter, job):
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in parameters(starter))
    assert fingerprint(starter) == before
    untrained = create_embedding(starter, name="mia", init_text=job.recipe.start.init_text, vectors=2)
    trained = read_embedding(job.destination.read_bytes(), "mia")
    assert (trained.vectors != untrained.vectors).any(axis=1).all()


def test_a_name_with_blanks_is_trained(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    recipe = job.recipe.model_copy(update={"name": "Mia the Second"})
    events = run_to_end(starter, replace(job, recipe=recipe))
    assert "Mia the Second" in of_kind(events, Progress)[-1].prompt
    assert events[-1].outcome == "finished"


def test_copies_and_previews_carry_the_true_step_in_their_names(starter: Model, make_job: MakeJob) -> None:
    job = make_job(save__every=4, save__images_every=3, preview__count=2, preview__prompt="portrait of [name], sad")
    events = run_to_end(starter, job)
    (copy,) = of_kind(events, CopySaved)
    assert Path(copy.path) == job.folder / "embeddings" / "mia-4.safetensors"
    assert read_embedding(Path(copy.path).read_bytes(), "mia-4").step == 4
    previews = of_kind(events, PreviewSaved)
    assert [Path(event.path).name for event in previews] == ["mia-3.png", "mia-3-2.png", "mia-6.png", "mia-6-2.png"]
    assert [event.seed for event in previews] == [0, 1, 0, 1]
    assert {event.prompt for event in previews} == {"portrait of mia, sad"}


def test_a_preview_carries_the_word_as_it_was_at_its_step(starter: Model, make_job: MakeJob) -> None:
    job = make_job(save__every=3, save__images_every=3)
    run_to_end(starter, job)
    carried = read_embedding((job.folder / "images" / "mia-3.png").read_bytes(), "mia-3")
    copy = read_embedding((job.folder / "embeddings" / "mia-3.safetensors").read_bytes(), "mia-3")
    assert (carried.name, carried.step) == ("mia-3", 3)
    assert carried.vectors.tobytes() == copy.vectors.tobytes()


def test_a_failing_preview_is_a_warning_and_changes_no_number(
    starter: Model, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room on the device")

    straight, failing = make_job("a"), make_job("b", save__images_every=2)
    run_to_end(starter, straight)
    monkeypatch.setattr(preview, "generate", fail)
    events = run_to_end(starter, failing)
    assert codes(events) == ["preview.failed"] * 3
    assert (straight.folder / LOSS_TABLE).read_text() == (failing.folder / LOSS_TABLE).read_text()


def test_unreadable_pictures_are_left_out_counted_and_named(starter: Model, make_job: MakeJob, dataset: Path) -> None:
    (dataset / "broken.png").write_bytes(b"no picture")
    events = run_to_end(starter, make_job())
    (prepared,) = of_kind(events, Prepared)
    assert prepared.pictures == 4
    assert len(prepared.skipped) == 1
    assert "broken.png" in prepared.skipped[0]
    assert codes(events) == ["dataset.skipped"]


def test_pictures_with_see_through_parts_are_named_in_every_run(
    starter: Model, make_job: MakeJob, dataset: Path
) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 90)).save(dataset / "glass.png")
    for run in ("first", "from the cache"):
        (warning,) = of_kind(run_to_end(starter, make_job(run)), Warned)
        assert warning.code == "dataset.transparent"
        assert "glass.png" in warning.title


def test_a_run_without_any_readable_picture_fails_with_the_reason(
    starter: Model, make_job: MakeJob, dataset: Path
) -> None:
    for path in dataset.glob("*.png"):
        path.write_bytes(b"no picture")
    error = fail_in(starter, make_job())
    assert error.code == "dataset.unreadable"
    assert "None of the 4 pictures" in error.title


def test_stopping_saves_the_word_as_it_is(starter: Model, make_job: MakeJob) -> None:
    job, control, events = make_job(), Control(), []
    for event in start(starter, job, control):
        events.append(event)
        if isinstance(event, Progress) and event.step == 3:
            control.ask = "stop"
    assert events[-1] == Ended("stopped", 3, str(job.destination))
    assert read_embedding(job.destination.read_bytes(), "mia").step == 3


def test_a_run_stopped_before_its_first_step_replaces_nothing(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    job.destination.parent.mkdir(parents=True)
    job.destination.write_bytes(b"an older word")
    events = list(start(starter, job, Control("stop")))
    assert events[-1] == Ended("stopped", 0, "")
    assert job.destination.read_bytes() == b"an older word"


def test_an_older_file_of_the_same_name_is_kept_in_the_runs_folder(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    job.destination.parent.mkdir(parents=True)
    job.destination.write_bytes(b"an older word")
    run_to_end(starter, job)
    assert (job.folder / "replaced" / "mia.safetensors").read_bytes() == b"an older word"
    assert read_embedding(job.destination.read_bytes(), "mia").step == 6


def test_an_update_that_is_not_finite_is_left_out(starter: Model, make_job: MakeJob) -> None:
    spoilt = with_unet(starter, lambda call, output: output * torch.nan if call in (2, 3) else output)
    job = make_job()
    events = run_to_end(spoilt, job)
    assert [loss is None for loss in losses_of(events)] == [False, True, True, False, False, False]
    assert np.isfinite(read_embedding(job.destination.read_bytes(), "mia").vectors).all()
    assert (job.folder / LOSS_TABLE).read_text().splitlines()[2].split(",")[3] == "nan"


def test_updates_left_out_in_a_row_roll_back_with_half_the_rate(
    starter: Model, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SKIPPED_IN_ROW", 3)
    spoilt = with_unet(starter, lambda call, output: output * torch.nan if 4 <= call <= 6 else output)
    job = make_job(train__steps=7)
    events = run_to_end(spoilt, job)
    (warning,) = of_kind(events, Warned)
    assert warning.code == "training.rolled_back"
    assert "back to step 2 with 0.5 times" in warning.title
    rows = [line.split(",") for line in (job.folder / LOSS_TABLE).read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(1, 8))
    assert [float(row[4]) for row in rows] == [0.02] * 2 + [0.01] * 5
    assert events[-1].outcome == "finished"


def test_a_run_that_diverges_a_third_time_fails(
    starter: Model, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SKIPPED_IN_ROW", 3)
    spoilt = with_unet(starter, lambda call, output: output * torch.nan if call > 3 else output)
    job = make_job()
    error = fail_in(spoilt, job)
    assert error.code == "training.diverged"
    assert "after 2 roll-backs" in error.title
    assert not job.destination.exists()


def test_a_word_that_nothing_reaches_is_reported_with_the_reason(starter: Model, make_job: MakeJob) -> None:
    deaf = with_unet(starter, lambda _call, output: output * 0)
    error = fail_in(deaf, make_job())
    assert error.code == "training.no_gradient"
    assert "exactly zero" in error.title


def test_a_word_glued_to_other_letters_in_a_template_is_reported_before_the_first_step(
    starter: Model, make_job: MakeJob, tmp_path: Path
) -> None:
    template = tmp_path / "glued.txt"
    template.write_text("portrait of [name]\nportrait of [name]s\n")
    error = fail_in(starter, make_job(data__template=str(template)))
    assert error.code == "training.word_missing"
    assert "mias" in error.title


def test_running_out_of_memory_is_reported_with_numbers_and_what_to_lower(starter: Model, make_job: MakeJob) -> None:
    def fail(_call: int, _output: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("tried to allocate")

    error = fail_in(with_unet(starter, fail), make_job())
    assert error.code == "memory.full"
    assert "2 pictures of 64 x 64" in error.title
    assert "train.batch_size" in error.hint


def test_a_rate_that_ends_early_ends_the_run_and_says_so(starter: Model, make_job: MakeJob) -> None:
    events = run_to_end(starter, make_job(train__learn_rate="0.05:3"))
    assert codes(events) == ["train.schedule"]
    assert events[-1].step == 3


def test_a_rate_that_cannot_get_anywhere_is_warned_of(starter: Model, make_job: MakeJob) -> None:
    assert codes(run_to_end(starter, make_job(train__learn_rate="1e-7"))) == ["train.reach"]


def test_foreign_text_is_escaped_in_the_log(starter: Model, make_job: MakeJob, dataset: Path) -> None:
    (dataset / "bad\x1b[31m.png").write_bytes(b"no picture")
    job = make_job()
    run_to_end(starter, job)
    log = (job.folder / "log.txt").read_text()
    assert "bad\\u001b[31m.png" in log
    assert all(char.isprintable() for char in log.replace("\n", ""))


def test_a_failure_is_the_last_line_of_the_log(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    fail_in(with_unet(starter, lambda _call, output: output * 0), job)
    assert "training.no_gradient" in (job.folder / "log.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_a_half_format_trains_vectors_in_float32(
    starter: Model, starter_entry: ModelEntry, make_job: MakeJob, dtype: torch.dtype
) -> None:
    half = load_model(starter_entry, device=torch.device("cpu"), dtype=dtype)
    full_job, half_job = make_job("full", train__steps=3), make_job("half", train__steps=3)
    full_losses, half_losses = losses_of(run_to_end(starter, full_job)), losses_of(run_to_end(half, half_job))
    assert half_losses == pytest.approx(full_losses, rel=0.05)
    vectors = read_embedding(half_job.destination.read_bytes(), "mia").vectors
    assert (vectors.astype(np.float16) != vectors).any()
