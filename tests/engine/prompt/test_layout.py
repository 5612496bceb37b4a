from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import VocableError
from engine.models.catalog import STARTER_FOLDER
from engine.prompt.layout import PLACEHOLDER, Chunk, Lexicon, Place, lay_out
from engine.prompt.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(STARTER_FOLDER / "tokenizer")


def slots(chunk: Chunk) -> list[int]:
    """A chunk's ids between its start and its first end token."""
    assert len(chunk.ids) == 77
    assert chunk.ids[0] == TOKENIZER.start_id
    return list(chunk.ids[1 : chunk.ids.index(TOKENIZER.end_id)])


def words(*named: tuple[str, int]) -> Lexicon:
    return Lexicon(TOKENIZER, named)


def places(text: str, *named: tuple[str, int]) -> list[tuple[str, int, int]]:
    return [
        (place.word, number * 77 + place.offset, place.vectors)
        for number, chunk in enumerate(lay_out(text, words(*named)))
        for place in chunk.places
    ]


def test_a_word_takes_the_place_of_its_name() -> None:
    [chunk] = lay_out("portrait of lyra, pink", words(("lyra", 3)))
    before, after = TOKENIZER.ids("portrait of"), TOKENIZER.ids(", pink")
    assert slots(chunk) == [*before, *[PLACEHOLDER] * 3, *after]
    assert chunk.places == (Place("lyra", 1 + len(before), 3),)


@pytest.mark.parametrize("name", ["two words", "sks_v2.1", "agent 007", "x-1", "Grün", "girl"])
@pytest.mark.parametrize("change", [str, str.upper, lambda name: name.replace(" ", "   ")])
def test_names_of_every_kind_are_found_in_any_case_and_spacing(name: str, change: Callable[[str], str]) -> None:
    assert [word for word, _, _ in places(f"a {change(name)} portrait", (name, 2))] == [name]


def test_several_words_and_one_word_twice_stand_in_one_prompt() -> None:
    found = places("lyra and vega and lyra", ("lyra", 2), ("vega", 4))
    gap = len(TOKENIZER.ids("and"))
    assert found == [("lyra", 1, 2), ("vega", 3 + gap, 4), ("lyra", 7 + 2 * gap, 2)]


@pytest.mark.parametrize("order", [1, -1])
def test_of_names_that_begin_alike_the_longest_is_taken(order: int) -> None:
    named = [("hero-20", 1), ("hero-200", 2), ("hero", 3)][::order]
    assert [word for word, _, _ in places("hero-200 hero-20 hero-2 hero", *named)] == [
        "hero-200",
        "hero-20",
        "hero",
        "hero",
    ]


def test_of_names_with_equal_tokens_the_first_is_taken() -> None:
    assert [word for word, _, _ in places("LYRA", ("Lyra", 1), ("lyra", 2))] == ["Lyra"]


def test_letters_glued_to_a_name_hide_it() -> None:
    assert places("lyrax", ("lyra", 1)) == []
    assert len(places("lyra_x", ("lyra", 1))) == 1


def test_an_empty_prompt_is_one_chunk_of_padding() -> None:
    [chunk] = lay_out("", words())
    assert slots(chunk) == []
    assert set(chunk.ids[2:]) == {TOKENIZER.pad_id}


def test_a_prompt_is_cut_into_chunks_of_75() -> None:
    token = TOKENIZER.ids("a")
    assert len(token) == 1
    assert [len(slots(chunk)) for chunk in lay_out("a " * 75, words())] == [75]
    assert [len(slots(chunk)) for chunk in lay_out("a " * 151, words())] == [75, 75, 1]


def test_a_word_that_does_not_fit_begins_the_next_chunk() -> None:
    assert places("a " * 71 + "lyra", ("lyra", 4)) == [("lyra", 72, 4)]
    assert places("a " * 72 + "lyra", ("lyra", 4)) == [("lyra", 77 + 1, 4)]
    assert places("lyra lyra", ("lyra", 75)) == [("lyra", 1, 75), ("lyra", 77 + 1, 75)]


def test_a_full_chunk_is_cut_behind_a_late_comma_and_its_tail_moves_on() -> None:
    early, late = "a " * 54 + ", " + "a " * 21, "a " * 60 + ", " + "a " * 15
    assert [len(slots(chunk)) for chunk in lay_out(early, words())] == [75, 1]
    assert [len(slots(chunk)) for chunk in lay_out(late, words())] == [61, 15]
    assert slots(lay_out(late, words())[0])[-1] == TOKENIZER.comma_id


def test_a_word_in_the_moved_tail_moves_whole() -> None:
    text = "a " * 64 + ", a a a lyra a a a a"
    first, second = lay_out(text, words(("lyra", 4)))
    assert first.places == ()
    assert second.places == (Place("lyra", 4, 4),)
    assert slots(second)[3:7] == [PLACEHOLDER] * 4


def test_a_word_longer_than_a_chunk_is_refused_only_where_it_is_used() -> None:
    assert places("girl", ("lyra", 76)) == []
    with pytest.raises(VocableError, match=r"'lyra'.*76.*75"):
        places("portrait of lyra", ("lyra", 76))


@given(
    st.lists(st.sampled_from(["a", ",", "lyra", "two words", "girl", "vega"]), max_size=200),
    st.integers(1, 75),
    st.integers(1, 75),
)
def test_every_prompt_keeps_all_its_tokens_and_no_word_is_split(pieces: list[str], one: int, two: int) -> None:
    known = words(("lyra", one), ("two words", two))
    chunks = lay_out(" ".join(pieces), known)
    found = [place for chunk in chunks for place in chunk.places]
    assert [place.word for place in found] == [piece for piece in pieces if piece in ("lyra", "two words")]
    plain: list[int] = []
    for chunk in chunks:
        covered = {place.offset + number for place in chunk.places for number in range(place.vectors)}
        assert len(covered) == sum(place.vectors for place in chunk.places)
        assert all(1 <= position <= 75 for position in covered)
        end = next(p for p in range(1, 77) if chunk.ids[p] == TOKENIZER.end_id and p not in covered)
        assert max(covered, default=0) < end
        plain += [chunk.ids[position] for position in range(1, end) if position not in covered]
    assert plain == TOKENIZER.ids(" ".join(piece for piece in pieces if piece not in ("lyra", "two words")))
