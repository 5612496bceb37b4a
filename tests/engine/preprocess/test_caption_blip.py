"""BLIP through transformers, on a tiny model with its own tokenizer that learns two sentences first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

from engine.errors import VocableError
from engine.preprocess.caption_blip import open_blip
from engine.preprocess.caption_files import check_blip
from engine.preprocess.request import Blip

SENTENCES = {"red": "a red picture of nothing", "blue": "a man in blue suits"}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[DEC]",
    "a",
    "picture",
    "of",
    "red",
    "nothing",
    "blue",
    "man",
    "in",
    "suit",
    "##s",
]
BEGIN, END = WORDS.index("[DEC]"), WORDS.index("[SEP]")

_SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)})
    processor = BlipImageProcessorPil(size={"height": 16, "width": 16})
    text = {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 32, "bos_token_id": BEGIN}
    ends = {"sep_token_id": END, "eos_token_id": END, "pad_token_id": 0, "label_smoothing": 0.0}
    config = BlipConfig(
        text_config={**_SIZE, **text, **ends}, vision_config={**_SIZE, "image_size": 16, "patch_size": 8}
    )
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    teach(model, tokenizer, processor)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


def teach(model: BlipForConditionalGeneration, tokenizer: BertTokenizerFast, processor: BlipImageProcessorPil) -> None:
    tokens = tokenizer(list(SENTENCES.values()), padding=True, return_tensors="pt").input_ids
    tokens[:, 0] = BEGIN
    pixels = processor(images=[picture(colour) for colour in SENTENCES], return_tensors="pt")["pixel_values"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(120):
        labels = tokens.masked_fill(tokens == 0, -100)
        loss = model(pixel_values=pixels, input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (50, 30), colour)


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
