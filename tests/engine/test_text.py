from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.text import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 猫 👍", "Größe 猫 👍"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\tc\x00", "a\\x0ab\\x09c\\x00"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800 \ue000 \u2028 \U000e0041", "\\ud800 \\ue000 \\u2028 \\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_long_text_is_cut_visibly() -> None:
    assert escape("x" * 11, limit=10) == "x" * 9 + "…"
    assert escape("x" * 10, limit=10) == "x" * 10


@given(st.text(), st.integers(1, 50))
def test_the_result_is_short_and_harmless(text: str, limit: int) -> None:
    shown = escape(text, limit=limit)
    assert len(shown) <= limit
    assert all(unicodedata.category(char)[0] != "C" for char in shown)
    shown.encode()  # strict: a lone surrogate would not pass
