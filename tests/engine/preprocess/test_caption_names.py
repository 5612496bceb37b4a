"""Captions in names of files, read back by the rules of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dataset.captions import read_caption
from engine.preprocess.caption_names import MAX_NAME_BYTES, stem_with_caption


def read_back(stem: str) -> str:
    return read_caption(Path(f"{stem}.png"))


def test_the_number_comes_first() -> None:
    assert stem_with_caption("00012-0", "a man in suit") == "00012-0-a man in suit"


def test_without_a_caption_the_number_stands_alone() -> None:
    assert stem_with_caption("00012-0", " ") == "00012-0"


@pytest.mark.parametrize(
    "caption", ["a man in suit", "2 girls, one hat", "-- quoted", "3", "e.g. this.", "größe", "猫"]
)
def test_a_caption_is_read_back(caption: str) -> None:
    assert read_back(stem_with_caption("00012-0", caption)) == caption


def test_what_no_name_may_hold_becomes_a_blank() -> None:
    assert stem_with_caption("1-0", 'a/b: "c"\n<d>\x1b[0m \ud800?') == "1-0-a b c d [0m"


def test_brackets_lose_their_backslash_and_stay() -> None:
    assert stem_with_caption("1-0", r"red dress \(clothes\)") == "1-0-red dress (clothes)"


@given(st.text(max_size=400))
def test_every_caption_makes_a_lawful_name(caption: str) -> None:
    stem = stem_with_caption("00012-10", caption)
    assert len(f"{stem}.png".encode()) <= MAX_NAME_BYTES
    assert not set('/\0\n\\:*?"<>|') & set(stem)
    assert read_back(stem) == read_back(stem_with_caption("00012-10", read_back(stem)))


def test_a_long_caption_ends_with_a_whole_word() -> None:
    stem = stem_with_caption("00012-0", "tag one, " * 60)
    assert stem.endswith("tag one") or stem.endswith("tag")
    assert 240 < len(f"{stem}.png") <= MAX_NAME_BYTES
