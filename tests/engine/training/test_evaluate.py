from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.embedding.create import create_embedding
from engine.embedding.shelf import shelve
from engine.errors import VocableError
from engine.models.load import Model
from engine.models.starter.sample import HELD_OUT_DIR, ORACLE_TEXT, TEMPLATES
from engine.training.evaluate import evaluate


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """Two of the pictures that are never trained on."""
    folder = tmp_path / "held out"
    folder.mkdir()
    for picture in sorted(HELD_OUT_DIR.glob("*.png"))[:2]:
        shutil.copy(picture, folder)
        shutil.copy(picture.with_suffix(".txt"), folder)
    return folder


def measure(model: Model, folder: Path, latents: Path, phrases: list[str], **options: Any) -> list[Any]:
    settings: dict[str, Any] = {"timesteps": 4, "noises": 1, "seed": 0, "lines": TEMPLATES, "words": []} | options
    return list(evaluate(model, folder=folder, phrases=phrases, width=64, height=64, latents=latents, **settings))


def test_the_true_description_has_a_lower_loss_than_a_false_one(starter: Model, held_out: Path, latents: Path) -> None:
    (true, false) = measure(starter, held_out, latents, [ORACLE_TEXT, "a bald man with blue skin, green shirt"])[-1]
    assert 0 < true < false


def test_equal_questions_have_equal_answers_whatever_else_is_asked(
    starter: Model, held_out: Path, latents: Path
) -> None:
    first = measure(starter, held_out, latents, ["girl"])[-1]
    assert measure(starter, held_out, latents, ["boy", "girl"])[-1][1] == first[0]
    assert measure(starter, held_out, latents, ["girl"], seed=1)[-1] != first


def test_a_word_made_of_another_has_that_words_loss(starter: Model, held_out: Path, latents: Path) -> None:
    word = create_embedding(starter, name="mia", init_text="girl", vectors=1)
    (girl, mia) = measure(starter, held_out, latents, ["girl", "mia"], words=[shelve(word)])[-1]
    assert girl == mia


def test_progress_is_counted_up_to_the_total(starter: Model, held_out: Path, latents: Path) -> None:
    *progress, losses = measure(starter, held_out, latents, ["girl", "boy"])
    assert len(losses) == 2
    assert progress == [(0, 2), (1, 2), (2, 2)]


def test_a_picture_that_cannot_be_read_is_an_error(starter: Model, held_out: Path, latents: Path) -> None:
    (held_out / "broken.png").write_bytes(b"no picture")
    with pytest.raises(VocableError, match=r"broken\.png"):
        measure(starter, held_out, latents, ["girl"])
