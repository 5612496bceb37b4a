"""Every writer's files give every word back bit for bit, from any format to any other."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from engine.embedding.convert import Converted, Format, convert, join_halves
from engine.embedding.payload import payload_json
from engine.embedding.pixels import decode_pixels
from engine.embedding.read import read_embedding
from engine.embedding.vectors import MAX_MAGNITUDE, Embedding
from engine.embedding.write import encode_safetensors, save_embedding
from engine.errors import VocableError
from engine.names import sanitize_name

FORMATS: tuple[Format, ...] = get_args(Format)
HEADERS = ("safetensors", "diffusers", "onetrainer")
"""Formats with room for everything that is known of a word."""

PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
SMALLEST = np.float32(1e-45)
EXTREMES = np.array([0.0, -0.0, MAX_MAGNITUDE, -MAX_MAGNITUDE, SMALLEST, -SMALLEST, 1.1754942e-38, 1 / 3], np.float32)

TAKEN = ("t5", "t5xxl", "emp_params_out", "clip_l_out", "clip_g_out", "t5_out", "string_to_param")
"""Names that mean something else as keys of a file; Hypothesis finds them among the constants of our own modules."""

names = (
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    .map(sanitize_name)
    .filter(lambda name: name and name not in TAKEN and not name.startswith("bundle_emb."))
)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
hashes = st.sampled_from(["", "0a1b2c3d", "0a1b2c3d4e"])
shapes = st.tuples(
    st.integers(1, 9), st.integers(1, 40) | st.sampled_from([768, 1024, 1280]), st.just(0) | st.integers(1, 40)
)


def numbers(rows: int, width: int, seed: int) -> NDArray[np.float32]:
    """Any lawful float32, from random bits, with the extremes strewn in."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 1 << 32, (rows, width), np.uint32).view(np.float32)
    lawful = np.isfinite(values) & (np.abs(values) <= MAX_MAGNITUDE)
    return np.where(lawful, values, EXTREMES[random.integers(0, len(EXTREMES), (rows, width))])


@st.composite
def words(draw: Any) -> Embedding:
    rows, left, right = draw(shapes)
    return Embedding(
        name=draw(names),
        vectors=numbers(rows, left + right, draw(st.integers(0, 2**32))),
        step=draw(st.integers(0, 10**12)),
        model=draw(texts),
        model_hash=draw(hashes),
        metadata=draw(st.dictionaries(texts.map("note.{}".format), texts, max_size=4)),
        split=left if right else 0,
    )


def word(**values: Any) -> Embedding:
    fields = {"name": "lyra", "vectors": numbers(3, 768, 5), "step": 120, "model": "m", "model_hash": "0a1b2c3d4e"}
    return Embedding(**{**fields, **values})


def pair(**values: Any) -> Embedding:
    return word(**{"vectors": numbers(3, 2048, 5), "split": 768, **values})


def read_back(converted: Converted, name: str) -> Embedding:
    found = [read_embedding(data, name) for _, data in converted.files]
    return join_halves(*found) if len(found) == 2 else found[0]


def assert_same(found: Embedding, expected: Embedding) -> None:
    assert found.vectors.tobytes() == expected.vectors.tobytes()
    assert (found.name, found.vectors.shape, found.split) == (expected.name, expected.vectors.shape, expected.split)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=30)
@given(given_word=words())
def test_a_format_gives_back_what_it_can_hold(format: Format, given_word: Embedding) -> None:
    found = read_back(convert(given_word, format, picture=PICTURE), given_word.name)
    assert_same(found, given_word)
    if format in HEADERS or not given_word.split:
        assert (found.step, found.model, found.model_hash) == (given_word.step, given_word.model, given_word.model_hash)
    if format in HEADERS:
        assert given_word.metadata.items() <= found.metadata.items()


@pytest.mark.parametrize(("first", "second"), permutations(FORMATS, 2))
@settings(max_examples=4)
@given(given_word=words())
def test_any_format_leads_to_any_other(first: Format, second: Format, given_word: Embedding) -> None:
    between = read_back(convert(given_word, first, picture=PICTURE), given_word.name)
    direct = convert(between, second, picture=PICTURE)
    assert_same(read_back(direct, given_word.name), given_word)
    if first in HEADERS:
        assert convert(given_word, second, picture=PICTURE).files == direct.files


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("rows", "width", "split"), [(1, 1, 0), (75, 1024, 0), (75, 2048, 768), (1, 2, 1)])
def test_the_smallest_and_the_largest_words_fit(format: Format, rows: int, width: int, split: int) -> None:
    given_word = word(vectors=numbers(rows, width, 1), split=split)
    assert_same(read_back(convert(given_word, format), "lyra"), given_word)


@pytest.mark.parametrize("given_word", [word(), pair()])
def test_a_picture_keeps_its_word_when_a_copy_drops_all_text(given_word: Embedding) -> None:
    ((suffix, data),) = convert(given_word, "png", picture=PICTURE).files
    image = Image.open(io.BytesIO(data))
    assert suffix == ".png"
    assert base64.b64decode(image.info.pop("sd-ti-embedding")) == payload_json(given_word)
    assert decode_pixels(np.asarray(image)) == payload_json(given_word)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        copy = io.BytesIO()
        image.save(copy, kind, **options)
        assert_same(read_embedding(copy.getvalue(), "lyra"), given_word)


def test_halves_are_joined_in_either_order() -> None:
    (_, left), (suffix, right) = convert(pair(), "diffusers").files
    halves = [read_embedding(left, "lyra"), read_embedding(right, "lyra_2")]
    assert suffix == "_2.safetensors"
    assert [half.vectors.shape for half in halves] == [(3, 768), (3, 1280)]
    assert_same(join_halves(*halves), pair())
    assert_same(join_halves(*reversed(halves)), pair())


@pytest.mark.parametrize(
    ("right", "problem"),
    [
        (word(vectors=numbers(2, 1280, 1)), "numbers of vectors"),
        (word(), "same text encoder"),
        (pair(), "whole SDXL word"),
    ],
)
def test_files_that_are_no_halves_of_one_word_are_not_joined(right: Embedding, problem: str) -> None:
    with pytest.raises(VocableError, match=problem) as caught:
        join_halves(word(), right)
    assert caught.value.code == "embedding.halves"


@pytest.mark.parametrize("format", ["webui-pt", "png"])
def test_what_webuis_layout_cannot_hold_is_named(format: Format) -> None:
    about = {"vocable.init_text": "girl", "vocable.recipe": "x", "modelspec.title": "lyra", "odd\x1b[2J": ""}
    notes = convert(word(metadata=about), format, picture=PICTURE).notes
    assert notes[0] == "The format has no place for: init text, recipe, odd\\x1b[2J."
    notes = convert(pair(metadata=about), format, picture=PICTURE).notes
    assert notes[0] == "The format has no place for: name, step, model, init text, recipe, odd\\x1b[2J."
    assert not [note for note in convert(word(), format, picture=PICTURE).notes if "no place" in note]


def test_many_losses_are_counted() -> None:
    about = {f"note.{number}": "x" for number in range(30)}
    (note,) = convert(word(metadata=about), "webui-pt").notes
    assert note.endswith("note.6, 23 more.")


def test_the_canonical_format_loses_nothing_and_says_nothing() -> None:
    assert convert(pair(metadata={"note": "x"}), "safetensors").notes == ()


def test_pixels_and_halves_come_with_a_word_of_advice() -> None:
    assert "lossless" in " ".join(convert(word(), "png", picture=PICTURE).notes)
    assert "text_encoder_2" in " ".join(convert(pair(), "diffusers").notes)


@pytest.mark.parametrize("name", [*TAKEN, "bundle_emb.x.clip_l"])
def test_a_name_that_means_something_else_in_a_file_is_refused(name: str) -> None:
    with pytest.raises(VocableError, match="another name") as caught:
        convert(word(name=name), "diffusers")
    assert caught.value.code == "embedding.verify"
    assert_same(read_back(convert(word(name=name), "webui-pt"), name), word(name=name))


def test_what_no_picture_can_carry_is_refused() -> None:
    with pytest.raises(VocableError, match="at most 8388608") as caught:
        convert(word(vectors=numbers(128, 8192, 1)), "png")
    assert caught.value.code == "embedding.unsupported"
    with pytest.raises(VocableError) as caught:
        convert(word(), "png", picture=PICTURE.resize((64, 8)))
    assert caught.value.code == "picture.small"


def test_spoilt_vectors_are_not_converted() -> None:
    vectors = word().vectors.copy()
    vectors[0, 0] = np.nan
    for format in FORMATS:
        with pytest.raises(VocableError) as caught:
            convert(replace(word(), vectors=vectors), format)
        assert caught.value.code == "embedding.not_finite"


@pytest.mark.parametrize(
    ("shape", "split", "prediction", "architecture"),
    [
        ((2, 768), 0, "epsilon", "stable-diffusion-v1"),
        ((2, 1024), 0, "epsilon", "stable-diffusion-v2-512"),
        ((2, 1024), 0, "v", "stable-diffusion-v2-768-v"),
        ((2, 2048), 768, "epsilon", "stable-diffusion-xl-v1-base"),
        ((2, 1280), 0, "epsilon", "other"),
    ],
)
def test_the_header_names_the_architecture(
    shape: tuple[int, int], split: int, prediction: str, architecture: str
) -> None:
    given_word = word(vectors=numbers(*shape, 1), split=split, metadata={"modelspec.prediction_type": prediction})
    for _, data in [*convert(given_word, "safetensors").files, *convert(given_word, "diffusers").files]:
        found = read_embedding(data, "lyra").metadata
        assert found["modelspec.architecture"] == f"{architecture}/textual-inversion"


def test_a_word_for_two_encoders_is_saved_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "lyra.safetensors"
    save_embedding(path, pair(metadata={"note": "x"}))
    found = read_embedding(path.read_bytes(), "lyra")
    assert_same(found, pair())
    assert found.metadata["note"] == "x"
    assert encode_safetensors(found) == path.read_bytes()
