"""What SDXL alone has: a second padding, no text as zeros, framing, words of two encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.dataset.latents import Latents
from engine.embedding.create import create_embedding
from engine.embedding.shelf import shelve
from engine.errors import VocableError
from engine.models.load import Model
from engine.prompt.encode import encode_prompts, prepare_prompts
from engine.prompt.layout import Lexicon, lay_out
from engine.sampling.generate import Picture, PictureRequest, generate
from engine.sampling.guidance import Course
from tests.engine.models.families import POOLED, WIDTH, Built
from tests.engine.models.test_families import SIZE, picture


@pytest.fixture
def model(built: Callable[[str], Built], loaded: Callable[[Path], Model]) -> Model:
    return loaded(built("sdxl").file)


def test_the_second_encoder_gets_its_own_padding_behind_the_end_token(model: Model) -> None:
    prompts = prepare_prompts(model, [lay_out("a cat", Lexicon(model.tokenizer, []))])
    assert prompts.second_ids is not None
    assert prompts.ids[0, :4].tolist() == prompts.second_ids[0, :4].tolist()
    assert prompts.ids[0, 3:].unique().tolist() == [model.tokenizer.end_id]
    assert prompts.second_ids[0, 4:].unique().tolist() == [0]


def test_each_encoder_gets_its_own_columns_of_a_word(model: Model) -> None:
    chunks = [lay_out("a mia hat", Lexicon(model.tokenizer, [("mia", 1)]))]
    vectors = torch.zeros(1, WIDTH + POOLED)
    plain = encode_prompts(model, chunks, {"mia": vectors})
    left, right = vectors.clone(), vectors.clone()
    left[:, :WIDTH], right[:, WIDTH:] = 1, 1
    first, second = (encode_prompts(model, chunks, {"mia": changed}) for changed in (left, right))
    assert torch.equal(first.hidden[..., WIDTH:], plain.hidden[..., WIDTH:])
    assert torch.equal(second.hidden[..., :WIDTH], plain.hidden[..., :WIDTH])
    assert not torch.equal(first.hidden, plain.hidden)
    assert plain.pooled is not None
    assert first.pooled is not None
    assert second.pooled is not None
    assert torch.equal(first.pooled, plain.pooled)
    assert not torch.equal(second.pooled, plain.pooled)


def test_a_new_word_is_made_of_both_tables_and_used_in_pictures(model: Model) -> None:
    word = create_embedding(model, name="mia", init_text="cat", vectors=1)
    token = model.tokenizer.ids("cat")[0]
    tables = (model.text_encoder, model.text_encoder_2)
    rows = [encoder.get_input_embeddings().weight[token].numpy() for encoder in tables]
    assert np.array_equal(word.vectors[0], np.concatenate(rows))
    request = PictureRequest((("a mia", 3),), "", "Euler", 1, 3.0, SIZE, SIZE)
    pictures = [item for item in generate(model, request, [shelve(word)]) if isinstance(item, Picture)]
    plain = picture(model, "a cat", negative_prompt="", steps=1, cfg_scale=3.0, emphasis="Original")
    assert pictures[0].image.tobytes() == plain


def test_a_word_of_one_encoder_is_refused(model: Model) -> None:
    chunks = [lay_out("mia", Lexicon(model.tokenizer, [("mia", 1)]))]
    with pytest.raises(VocableError, match="64 numbers wide") as caught:
        encode_prompts(model, chunks, {"mia": torch.zeros(1, WIDTH)})
    assert caught.value.code == "embedding.width"


def test_no_negative_prompt_is_told_as_zeros(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, given = (picture(model, "a cat", negative_prompt=text) for text in ("", "dog"))
    silenced: list[Course] = []
    monkeypatch.setattr(Course, "silenced", lambda course: silenced.append(course) or course)
    assert picture(model, "a cat", negative_prompt="dog") == given
    assert not silenced
    assert picture(model, "a cat", negative_prompt="") != empty
    assert silenced


@pytest.mark.parametrize(
    ("original", "framing"),
    [
        (None, (512, 768, 0, 0, 512, 768)),
        ((768, 512), (512, 768, 0, 0, 512, 768)),
        ((1000, 1000), (1000, 1000, 128, 0, 512, 768)),
        ((2000, 512), (512, 2000, 0, 616, 512, 768)),
        ((96, 64), (64, 96, 0, 0, 512, 768)),
    ],
)
def test_a_picture_tells_how_it_was_scaled_and_cut(original: tuple[int, int] | None, framing: tuple[int, ...]) -> None:
    cells = torch.zeros(4, 64, 96)
    assert Latents(cells, cells, original=original).framing(8) == framing
