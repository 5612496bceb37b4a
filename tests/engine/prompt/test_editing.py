"""Schedules worked out by hand from the description of the grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompt.editing import parse_editing, schedule_text


@pytest.mark.parametrize(
    ("text", "steps", "entries"),
    [
        ("plain", 10, [(10, "plain")]),
        ("[a:b:0.5]", 20, [(10, "a"), (20, "b")]),
        ("[a:0.25]", 20, [(5, ""), (20, "a")]),
        ("[a::5]", 20, [(5, "a"), (20, "")]),
        ("[a:b:30]", 20, [(20, "a")]),
        ("[a:b:0]", 20, [(20, "b")]),
        ("[[a:b:5]:c:10]", 20, [(5, "a"), (10, "b"), (20, "c")]),
        ("a [b:3]", 10, [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", 10, [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", 10, [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", 10, [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", 10, [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [b:.5] c", 10, [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", 10, [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", 3, [(1, "a"), (2, "(b:1.1)"), (3, "a")]),
        ("[fe|]male", 2, [(1, "female"), (2, "male")]),
        ("[fe|||]male", 5, [(1, "female"), (2, "male"), (3, "male"), (4, "male"), (5, "female")]),
        ("(x [a:b:2]:1.5) [[c|d]]", 3, [(1, "(x a:1.5) [c]"), (2, "(x a:1.5) [d]"), (3, "(x b:1.5) [c]")]),
        (r"[a\:b:c:2] \[d:e:2]", 4, [(2, r"a\:b \[d:e:2]"), (4, r"c \[d:e:2]")]),
    ],
)
def test_texts_change_where_the_brackets_say(text: str, steps: int, entries: list[tuple[int, str]]) -> None:
    assert schedule_text(text, steps) == entries


@pytest.mark.parametrize(
    ("number", "last"),
    [
        ("1", 1),
        ("1.0", 20),
        ("1.5", 20),
        (".5", 10),
        ("5.", 20),
        ("0.29", 5),
        ("+3", 3),
        ("2e0", 2),
        ("1.e-1", 2),
        ("  7 ", 7),
        ("9" * 400, 20),
        ("-3", 0),
        ("-0.5", 0),
        ("0.04", 0),
        ("1e-1", 0),
        ("-1e999", 0),
    ],
)
def test_a_number_with_a_dot_is_a_fraction_and_one_without_a_step(number: str, last: int) -> None:
    expected = [entry for entry in [(last, "a"), (20, "b")] if entry[0]]
    assert schedule_text(f"[a:b:{number}]", 20) == (expected if last < 20 else [(20, "a")])


@pytest.mark.parametrize(
    "text",
    [
        "a [unbalanced",
        "[a:b:c:5]",
        "[a|b:0.5]",
        "[a:b|c:5]",
        "[a:b]",
        "[a:]",
        "[a:1.2.3]",
        "[a:b:5) (c:d:5]",
        "a | b [c:d:5]",
        "(a|b) [c:d:5]",
        "[a|b:0.5] [c:d:5]",
        "[c:d:5] \\",
        "(a [b) c:5]",
    ],
)
def test_what_fits_no_construct_is_literal(text: str) -> None:
    assert schedule_text(text, 10) == [(10, text)]


def test_a_construct_that_does_not_fit_leaves_the_others_alone() -> None:
    assert schedule_text("[a:b:c:5] [d:e:5]", 10) == [(5, "[a:b:c:5] d"), (10, "[a:b:c:5] e")]
    assert schedule_text("[x (a:b:c) [d:e:3]:5]", 10) == [(3, "[x (a:b:c) d:5]"), (10, "[x (a:b:c) e:5]")]


@pytest.mark.parametrize(
    ("before", "after"), [("[", ""), ("[a:", ""), ("[", ":b:1]"), ("[a|", "]"), ("(", ")")], ids=str
)
def test_brackets_may_be_nested_as_deep_as_a_text_is_long(before: str, after: str) -> None:
    assert schedule_text(before * 2000 + "x" + after * 2000, 2)[-1][0] == 2


@given(st.text(alphabet=st.characters(exclude_characters="[]()|:\\")), st.integers(1, 500))
def test_text_without_signs_is_the_same_at_every_step(text: str, steps: int) -> None:
    assert schedule_text(text, steps) == [(steps, text)]


@given(st.text(alphabet="[]():ab "))
def test_what_is_no_construct_gives_the_text_again(text: str) -> None:
    nodes = parse_editing(text)
    if all(isinstance(node, str) for node in nodes):
        assert "".join(map(str, nodes)) == text
