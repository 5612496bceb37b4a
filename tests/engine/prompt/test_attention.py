"""Weights worked out by hand from the description of the grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompt.attention import Piece, parse_attention


def read(text: str) -> list[list[tuple[str, float]]]:
    return [[(piece.text, pytest.approx(piece.weight)) for piece in section] for section in parse_attention(text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("a (b) c", [("a ", 1), ("b", 1.1), (" c", 1)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("((a)) [[b]]", [("a", 1.21), (" ", 1), ("b", 1 / 1.21)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("(a:-.5) (b: +2. )", [("a", -0.5), (" ", 1), ("b", 2)]),
        ("((a:1.5) b:2)", [("a", 3), (" b", 2)]),
        ("(a (b [c", [("a ", 1.1), ("b ", 1.21), ("c", 1.1)]),
        ("a) b] :2)", [("a) b] :2)", 1)]),
        ("(a:x)", [("a:x", 1.1)]),
        ("(a:1.2:3)", [("a:1.2", 3)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:.) (b:1e3)", [("a:.", 1.1), (" ", 1), ("b:1e3", 1.1)]),
        (f"(a:{'9' * 400})", [(f"a:{'9' * 400}", 1.1)]),
        (r"\(a\) \[b\] \\", [("(a) [b] \\", 1)]),
        (r"\o/ (a\:2)", [("o/ ", 1), ("a", 2)]),
        ("(a)(b)(c:1.1)d", [("abc", 1.1), ("d", 1)]),
        ("([a)b]", [("a", 1), ("b", 1 / 1.1)]),
        ("[a|b] [c:d:.5]", [("a|b", 1 / 1.1), (" ", 1), ("c:d:.5", 1 / 1.1)]),
    ],
)
def test_brackets_weigh_their_contents(text: str, pieces: list[tuple[str, float]]) -> None:
    assert [pieces] == read(text)


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("a BREAK b", [[("a", 1)], [("b", 1)]]),
        ("(a BREAK b:1.3)", [[("a", 1.3)], [("b", 1.3)]]),
        ("[a (BREAK) b]", [[("a ", 1 / 1.1)], [(" b", 1 / 1.1)]]),
        ("BREAK", [[], []]),
        ("aBREAK break BREAK_", [[("aBREAK break BREAK_", 1)]]),
    ],
)
def test_break_parts_sections_inside_brackets_too(text: str, sections: list[list[tuple[str, float]]]) -> None:
    assert sections == read(text)


@given(st.text(alphabet=st.characters(exclude_characters="()[]:\\")).filter(lambda text: "BREAK" not in text))
def test_text_without_signs_stays_as_it_is(text: str) -> None:
    assert parse_attention(text) == ((Piece(text, 1.0),) if text else (),)
