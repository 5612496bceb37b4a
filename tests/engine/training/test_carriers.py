"""Previews that are words: `image_embeddings/NAME-STEP.png` beside the pictures of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.embedding.overlay import draw_overlay
from engine.embedding.read import read_embedding
from engine.errors import VocableError
from engine.events import Ended, PreviewSaved, Warned
from engine.models.load import Model
from engine.training import preview
from tests.engine.training.conftest import MakeJob, of_kind, run_to_end


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_carrier_is_the_word_as_it_was_at_its_step_even_without_its_text(starter: Model, make_job: MakeJob) -> None:
    job = make_job(save__every=3, save__images_every=3)
    run_to_end(starter, job)
    data = (job.folder / "image_embeddings" / "mia-3.png").read_bytes()
    bare = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(io.BytesIO(data)))).save(bare, "PNG")
    copy = read_embedding((job.folder / "embeddings" / "mia-3.safetensors").read_bytes(), "mia-3")
    for file in (data, bare.getvalue()):
        found = read_embedding(file, "mia-3")
        assert (found.trigger, found.step, found.model_hash) == ("mia-3", 3, job.resolved.model.hash)
        assert found.vectors.tobytes() == copy.vectors.tobytes()


def test_each_step_with_previews_makes_one_carrier_of_its_first_picture(starter: Model, make_job: MakeJob) -> None:
    job = make_job(save__images_every=3, preview__count=2)
    events = run_to_end(starter, job)
    assert names(job.folder / "image_embeddings") == ["mia-3.png", "mia-6.png"]
    assert len(of_kind(events, PreviewSaved)) == 4
    first = Image.open(job.folder / "images" / "mia-6.png")
    carrier = Image.open(job.folder / "image_embeddings" / "mia-6.png")
    edge = (carrier.width - first.width) // 2
    model = job.resolved.model
    expected = draw_overlay(first, title="mia-6", model=model.name, model_hash=model.hash, vectors=2, step=6)
    shown = carrier.crop((edge, 0, edge + first.width, first.height))
    assert np.array_equal(np.asarray(shown), np.asarray(expected))


def test_pictures_that_shall_not_carry_their_word_do_not(starter: Model, make_job: MakeJob) -> None:
    job = make_job(save__images_every=3, save__embed_in_images=False)
    run_to_end(starter, job)
    assert names(job.folder / "images") == ["mia-3.png", "mia-6.png"]
    assert not (job.folder / "image_embeddings").exists()


def test_a_carrier_that_cannot_be_saved_is_a_warning_and_the_previews_go_on(
    starter: Model, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise VocableError("disk.full", "There is no room.", "Free some space.")

    monkeypatch.setattr(preview, "save_carrier", fail)
    job = make_job(save__images_every=3, preview__count=2)
    events = run_to_end(starter, job)
    assert len(of_kind(events, PreviewSaved)) == 4
    warnings = of_kind(events, Warned)
    assert [(warning.code, warning.hint) for warning in warnings] == [("preview.failed", "Free some space.")] * 2
    assert "carries the word of step 3" in warnings[0].title
    assert of_kind(events, Ended)[-1].outcome == "finished"


def test_what_a_preview_prompt_gets_wrong_is_said_once(starter: Model, make_job: MakeJob) -> None:
    job = make_job(save__images_every=2, preview__prompt="portrait of [name] and <embedding:nobody>")
    events = run_to_end(starter, job)
    assert len(of_kind(events, PreviewSaved)) == 3
    (warning,) = of_kind(events, Warned)
    assert "nobody" in warning.title
