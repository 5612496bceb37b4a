from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.captions import MAX_CAPTION_BYTES, caption_from_name, read_caption
from engine.errors import VocableError


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (b"smiling, green background\n", "smiling, green background"),
        (b"\xef\xbb\xbfsmiling\r\nred hat\r\n", "smiling red hat"),
        ("größer".encode(), "größer"),
        (b"", ""),
    ],
)
def test_a_text_file_beside_the_picture_is_its_caption(tmp_path: Path, data: bytes, caption: str) -> None:
    (tmp_path / "1.txt").write_bytes(data)
    assert read_caption(tmp_path / "1.png") == caption


def test_without_a_text_file_the_name_is_the_caption(tmp_path: Path) -> None:
    assert read_caption(tmp_path / "003-1 smiling in red.png") == "smiling in red"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfeh\x00i\x00", "UTF-8"),
        (bytes(range(256)), "UTF-8"),
        (b"x" * (MAX_CAPTION_BYTES + 1), "KiB"),
        (b"x" * 10_000_000, "KiB"),
    ],
)
def test_a_caption_that_is_no_short_utf8_text_is_refused_by_name(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "1.txt").write_bytes(data)
    with pytest.raises(VocableError, match=reason) as caught:
        read_caption(tmp_path / "1.png")
    assert "1.txt" in caught.value.title


@pytest.mark.parametrize(
    ("stem", "regex", "join", "caption"),
    [
        ("0012 a cat", "", " ", "a cat"),
        ("2024-05-01 a cat", "", " ", "a cat"),
        ("a cat 2", "", " ", "a cat 2"),
        ("7_a-cat_sits", r"[a-z]+", ", ", "a, cat, sits"),
        ("cat(1) dog(2)", r"([a-z]+)\(", " ", "cat dog"),
        ("cat=big dog=", r"(\w+)=(\w*)", "+", "cat+big+dog"),
        ("123", r"[a-z]+", " ", ""),
        ("7 caf\udce9 au lait", "", " ", "caf au lait"),
    ],
)
def test_words_are_picked_out_of_a_file_name(stem: str, regex: str, join: str, caption: str) -> None:
    assert caption_from_name(stem, word_regex=regex, word_join=join) == caption
