"""BLIP through transformers, on a tiny model with its own tokenizer that learns two sentences first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from engine.errors import VocableError
from engine.preprocess.caption_blip import open_blip
from engine.preprocess.caption_files import check_blip
from engine.preprocess.request import Blip
from tests.engine.preprocess.tiny_blip import SENTENCES, WORDS, make_blip, picture


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    make_blip(folder)
    return folder


@pytest.fixture
def copy(blip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(blip, tmp_path / "copy"))


@pytest.mark.parametrize("beams", [1, 3])
def test_it_says_what_the_picture_shows(blip: Path, beams: int) -> None:
    say = open_blip(blip, device="cpu", search=Blip(beams=beams, min_tokens=0))
    assert {colour: say(picture(colour)) for colour in SENTENCES} == SENTENCES


def test_a_caption_has_the_length_asked_for(blip: Path) -> None:
    shortest = open_blip(blip, device="cpu", search=Blip(min_tokens=12, max_tokens=16))(picture("red"))
    longest = open_blip(blip, device="cpu", search=Blip(min_tokens=0, max_tokens=4))(picture("red"))
    assert len(shortest.split()) > len(SENTENCES["red"].split())
    assert longest == "a red picture"


def test_runs_of_tokens_do_not_come_twice_when_asked(blip: Path) -> None:
    words = open_blip(blip, device="cpu", search=Blip(min_tokens=10, max_tokens=12, no_repeat=1))(picture("red"))
    assert len(set(words.split())) == len(words.split())


def test_an_old_vocabulary_file_does_as_well(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    assert open_blip(copy, device="cpu", search=Blip(min_tokens=0))(picture("blue")) == SENTENCES["blue"]


def test_what_to_put_where_is_told(tmp_path: Path) -> None:
    with pytest.raises(VocableError, match=r"lacks config.json.*Put a BLIP captioning model") as caught:
        check_blip(tmp_path / "blip")
    assert caught.value.code == "caption.missing"


def test_a_file_that_lacks_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(VocableError, match=r"lacks model\.safetensors or"):
        check_blip(copy)


def test_a_model_of_another_kind_is_told(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(VocableError, match="kind 'clip', not 'blip'") as caught:
        check_blip(copy)
    assert caught.value.code == "caption.unreadable"


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, b"[]"])
def test_a_garbled_configuration_is_told(copy: Path, data: bytes) -> None:
    (copy / "config.json").write_bytes(data)
    with pytest.raises(VocableError, match=r"cannot be used: config\.json"):
        check_blip(copy)


def test_a_model_that_lacks_weights_is_not_filled_with_noise(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights[min(weights)]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(VocableError, match="1 of its weights lack"):
        open_blip(copy, device="cpu", search=Blip())


def test_torn_weights_are_told(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VocableError, match="cannot be used") as caught:
        open_blip(copy, device="cpu", search=Blip())
    assert caught.value.code == "caption.unreadable"


@pytest.mark.gpu
def test_on_a_gpu_it_says_the_same(blip: Path) -> None:
    say = open_blip(blip, device="cuda", search=Blip(min_tokens=0))
    assert {colour: say(picture(colour)) for colour in SENTENCES} == SENTENCES
