from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from engine.errors import VocableError
from engine.models.configs.build_clip_tokenizer import build_tokenizer
from engine.prompt.layout import Lexicon, lay_out
from engine.prompt.tokenizer import load_tokenizer
from tests.engine.prompt.prompts import CASES, TOKENIZERS

FOLDER = TOKENIZERS["starter"]
TOKENIZER = load_tokenizer(FOLDER)
CLIP = load_tokenizer(TOKENIZERS["clip"])
BOTH = [(load_tokenizer(folder), CLIPTokenizer.from_pretrained(str(folder))) for folder in TOKENIZERS.values()]

TEXTS = [
    "portrait of a girl with blue twintails, pink background",
    "A  PHOTO\tof\nit's 2024!!! (a:1.3) x_1-y.z",
    "don't we'll <|startoftext|> a <|endoftext|> b",
    "Ünïcode é 漢字 😀 İstanbul",
    "",
    "   ",
]


@pytest.fixture
def original_layout(tmp_path: Path) -> Path:
    """The starter's vocabulary in the files of original Stable Diffusion folders."""
    model = json.loads((FOLDER / "tokenizer.json").read_text())["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    return tmp_path


@given(st.sampled_from(TEXTS) | st.sampled_from([case.text for case in CASES]) | st.text(max_size=60))
def test_ids_are_those_of_transformers(text: str) -> None:
    for tokenizer, reference in BOTH:
        assert tokenizer.ids(text) == reference(text, add_special_tokens=False)["input_ids"]


def test_special_tokens_are_those_of_transformers() -> None:
    for tokenizer, reference in BOTH:
        found = (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id)
        assert found == (reference.bos_token_id, reference.eos_token_id, reference.pad_token_id)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("*", [265]),
        (",", [267]),
        ("foo", [23435]),
        ("foobar", [1183, 2411]),
        ("whatever-200", [6743, 268, 273, 271, 271]),
        ("!", [256]),
        ("<|startoftext|> <|endoftext|>", [49406, 49407]),
    ],
)
def test_clips_vocabulary_gives_the_ids_that_are_known(text: str, ids: list[int]) -> None:
    assert CLIP.ids(text) == ids


def test_clips_files_are_as_they_were_made() -> None:
    folder = TOKENIZERS["clip"]
    merges = (folder / "merges.txt").read_bytes()
    assert hashlib.sha256(merges).hexdigest() == "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"
    vocabulary = json.loads((folder / "vocab.json").read_bytes())
    pairs = merges.decode().splitlines()[1:]
    assert sorted(vocabulary.values()) == list(range(49408))
    assert all(vocabulary[pair.replace(" ", "")] == 512 + rank for rank, pair in enumerate(pairs))
    assert "Copyright (c) 2021 OpenAI" in (folder / "LICENSE").read_text()


def test_clips_files_are_made_from_the_published_source_only() -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        build_tokenizer(b"something else")


@pytest.mark.parametrize(
    ("name", "ordinary"), [("girl", True), ("Girl", True), ("a", True), ("foo bar", False), ("zyxzy", False)]
)
def test_one_whole_word_of_the_vocabulary_is_ordinary(name: str, ordinary: bool) -> None:
    assert CLIP.is_ordinary(CLIP.name_ids(name)) is ordinary
    assert not CLIP.is_ordinary([])
    assert not CLIP.is_ordinary([CLIP.end_id])


@pytest.mark.parametrize("text", TEXTS)
def test_vocabulary_and_merges_give_the_ids_of_the_single_file(original_layout: Path, text: str) -> None:
    assert load_tokenizer(original_layout).ids(text) == TOKENIZER.ids(text)


def test_a_long_text_is_not_cut() -> None:
    assert TOKENIZER.ids("a " * 300) == TOKENIZER.ids("a") * 300


@pytest.mark.parametrize("pad", ["!", {"content": "!", "lstrip": False}])
def test_padding_follows_the_tokenizers_own_files(original_layout: Path, pad: object) -> None:
    assert load_tokenizer(original_layout).pad_id == TOKENIZER.end_id
    (original_layout / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))
    tokenizer = load_tokenizer(original_layout)
    assert tokenizer.pad_id == 0
    chunk = lay_out("girl", Lexicon(tokenizer, []))[0]
    assert chunk.ids[1:4] == (*tokenizer.ids("girl"), tokenizer.end_id, 0)
    assert set(chunk.ids[3:]) == {0}


def test_a_missing_or_damaged_file_is_named(original_layout: Path) -> None:
    (original_layout / "merges.txt").write_text("#version: 0.2\nno such pair here\n")
    with pytest.raises(VocableError) as caught:
        load_tokenizer(original_layout)
    assert caught.value.code == "model.unreadable"
    (original_layout / "merges.txt").unlink()
    with pytest.raises(VocableError, match=r"merges\.txt is missing"):
        load_tokenizer(original_layout)


def test_a_special_token_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "no such token"}')
    with pytest.raises(VocableError, match="no such token"):
        load_tokenizer(tmp_path)
