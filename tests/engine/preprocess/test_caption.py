"""Captioners opened alike, and what tells one from another."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.errors import VocableError
from engine.models.starter.sample import TRAIN_DIR
from engine.preprocess.caption import ModelCaptioner, open_captioner
from engine.preprocess.caption_files import CaptionModels, identify_captioner
from engine.preprocess.request import Captions


@pytest.fixture
def models(tmp_path: Path) -> CaptionModels:
    return CaptionModels(blip=tmp_path / "blip", tagger=tmp_path / "tagger")


def fill_blip(folder: Path, weights: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "blip"}')
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)


def test_nobody_captions_unless_asked(models: CaptionModels) -> None:
    assert open_captioner(Captions(), models, device="cpu") is None
    assert identify_captioner(Captions(), models) == ""


def test_the_starters_labels_need_no_model(models: CaptionModels) -> None:
    captioner = open_captioner(Captions(make="starter"), models, device="cpu")
    assert captioner is not None
    with Image.open(TRAIN_DIR / "0001.png") as picture:
        (caption,) = captioner.caption([picture], TRAIN_DIR / "0001.png")
    assert caption.endswith((TRAIN_DIR / "0001.txt").read_text().strip())


def test_a_missing_model_is_told_without_loading_anything(models: CaptionModels) -> None:
    with pytest.raises(VocableError, match="There is no BLIP model") as caught:
        identify_captioner(Captions(make="blip"), models)
    assert caught.value.code == "caption.missing"


def test_other_weights_are_another_captioner(models: CaptionModels) -> None:
    blip = Captions(make="blip")
    fill_blip(models.blip, b"\x00" * 3_000_000)
    first = identify_captioner(blip, models)
    assert identify_captioner(blip, models) == first
    fill_blip(models.blip, b"\x00" * 2_999_999 + b"\x01")
    assert identify_captioner(blip, models) != first


def test_what_lies_under_transparency_is_not_captioned() -> None:
    seen: list[Image.Image] = []
    captioner = ModelCaptioner("test", lambda picture: seen.append(picture) or "")  # type: ignore[func-returns-value]
    captioner.caption([Image.new("RGBA", (2, 2), (255, 0, 0, 0))], Path("a.png"))
    assert seen[0].getpixel((0, 0)) == (255, 255, 255)
