from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import VocableError
from engine.models.catalog import STARTER_FOLDER
from engine.prompt.count import PromptCount, count_prompt
from engine.prompt.layout import Chunk, Lexicon, Place, lay_out
from engine.prompt.parse import Entry, ParsedPrompt, Part, entry_at, parse_prompt
from engine.prompt.tags import Tag, strip_comments
from engine.prompt.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(STARTER_FOLDER / "tokenizer")
LEXICON = Lexicon(TOKENIZER, [("mia", 4), ("foo", 2), ("foo bar", 3), ("Lyra", 5), ("lyra", 2), ("wide", 76)])

SIGNS = st.lists(st.sampled_from([*"[]():|\\<>#\n.5- ", "a", "mia", "BREAK", "AND", "embedding:", "\U000f0000"]))


def parse(text: str, steps: int = 10, negative: bool = False) -> ParsedPrompt:
    return parse_prompt(text, LEXICON, steps=steps, negative=negative)


def chunk_of(text: str) -> Chunk:
    [part] = parse(text).parts
    [entry] = part.entries
    [chunk] = entry.chunks
    return chunk


def places(text: str) -> list[tuple[str, float]]:
    chunk = chunk_of(text)
    return [(place.word, chunk.weights[place.offset]) for place in chunk.places]


def switch(compat: str, steps: int, text: str) -> str:
    """The first word at each step."""
    part = parse(text, steps).parts[0]
    entries = [entry_at(part, step, compat=compat) for step in range(1, steps + 1)]
    return " ".join(entry.chunks[0].places[0].word for entry in entries)


def test_words_tags_and_unknown_ones_are_named_once() -> None:
    parsed = parse("mia <lora:x:0.5> [foo:mia:3] embedding:gone AND foo <embedding:gone> <hypernet:y>")
    assert parsed.words == ("mia", "foo")
    assert parsed.tags == (Tag("lora", ("x", "0.5")), Tag("hypernet", ("y",)))
    assert parsed.unknown == ("gone",)


def test_sides_of_and_have_weights_and_schedules_of_their_own() -> None:
    parsed = parse("mia AND [foo:lyra:4]:0.5 AND a :-2")
    assert [part.weight for part in parsed.parts] == [1.0, 0.5, -2.0]
    assert [[entry.until for entry in part.entries] for part in parsed.parts] == [[10], [4, 10], [10]]


def test_a_negative_prompt_has_no_sides_and_no_weight() -> None:
    [part] = parse("mia AND foo:2", negative=True).parts
    assert part.weight == 1.0
    assert [place.word for place in part.entries[0].chunks[0].places] == ["mia", "foo"]


def test_comments_reach_to_the_end_of_their_line() -> None:
    assert strip_comments("# all\na # b\nc \\# d \\\\# e") == "\na \nc \\# d \\\\"


def test_a_switch_comes_after_the_step_that_the_text_names() -> None:
    assert switch("", 4, "[foo:mia:2]") == "foo foo mia mia"
    assert switch("", 4, "[foo|mia]") == "foo mia foo mia"


def test_with_webuis_timing_every_switch_comes_one_step_later() -> None:
    assert switch("webui", 4, "[foo:mia:2]") == "foo foo foo mia"
    assert switch("webui", 4, "[foo|mia]") == "foo foo mia foo"


def test_steps_beyond_the_last_keep_the_last_entry() -> None:
    part = Part(1.0, (Entry(2, ()), Entry(4, (chunk_of("a"),))))
    assert entry_at(part, 9) is part.entries[1]


@pytest.mark.parametrize(
    "form", ["embedding:{}", "<embedding:{}>", "EMBEDDING:{}", "x, (embedding:{})", "embedding:{}.pt"]
)
@pytest.mark.parametrize("name", ["mia", "foo", "foo bar", "Lyra", "lyra"])
def test_explicit_words_are_found_by_name(form: str, name: str) -> None:
    assert [word for word, _ in places(form.format(name))] == [name]


def test_an_explicit_name_in_other_case_is_the_first_that_fits() -> None:
    assert places("embedding:LYRA embedding:MIA") == [("Lyra", 1.0), ("mia", 1.0)]


@pytest.mark.parametrize("text", ["embedding:mia2", "embedding:mia-2", "embedding:mia.v2", "<embedding:mia 2>"])
def test_an_explicit_name_is_not_the_beginning_of_another(text: str) -> None:
    parsed = parse(text)
    assert parsed.words == ()
    assert parsed.unknown == (text.strip("<>").removeprefix("embedding:"),)
    assert chunk_of(text).used == 0


def test_explicit_words_are_weighed_like_any_text() -> None:
    assert places("(embedding:mia:1.2) <embedding:foo:0.5> [embedding:foo bar]") == [
        ("mia", 1.2),
        ("foo", 0.5),
        ("foo bar", 1 / 1.1),
    ]


def test_explicit_words_are_carried_through_schedules() -> None:
    assert switch("", 4, "[embedding:foo:<embedding:mia>:2]") == "foo foo mia mia"


def test_characters_that_stand_for_explicit_words_may_stand_in_the_text_too() -> None:
    private = chr(0xF0000)
    chunk = chunk_of(f"{private} embedding:mia")
    before = len(TOKENIZER.ids(private))
    assert before > 0
    assert chunk.places == (Place("mia", 1 + before, 4),)


def test_a_word_longer_than_a_chunk_is_refused_only_where_it_is_used() -> None:
    assert parse("a").words == ()
    with pytest.raises(VocableError, match=r"'wide'.*76.*75"):
        parse("[a:embedding:wide:5]")


def test_training_reads_attention_but_no_schedule() -> None:
    [chunk] = lay_out("(mia:1.2) [a:b:5]", LEXICON)
    assert chunk.weights[1:5] == (1.2,) * 4
    assert chunk.used == 4 + len(TOKENIZER.ids("a:b:5"))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", PromptCount(0, 75, (0,))),
        ("a mia", PromptCount(5, 75, (5,))),
        ("a " * 75, PromptCount(75, 75, (75,))),
        ("a " * 76, PromptCount(76, 150, (75, 1))),
        ("a BREAK b", PromptCount(76, 150, (1, 1))),
        ("a " * 72 + "mia", PromptCount(79, 150, (72, 4))),
        ("[a:a mia:5] AND a a", PromptCount(5, 75, (5,))),
    ],
)
def test_the_longest_variant_is_counted(text: str, count: PromptCount) -> None:
    assert count_prompt(parse(text)) == count


@given(SIGNS.map("".join) | st.text(), st.integers(1, 500), st.sampled_from(["Original", "Ignore", "None", "No norm"]))
def test_every_text_is_a_prompt(text: str, steps: int, emphasis: str) -> None:
    parsed = parse_prompt(text, LEXICON, steps=steps, emphasis=emphasis)  # type: ignore[arg-type]
    for part in parsed.parts:
        untils = [entry.until for entry in part.entries]
        assert untils == sorted(set(untils))
        assert untils[-1] == steps
        assert all(len(chunk.ids) == len(chunk.weights) == 77 for entry in part.entries for chunk in entry.chunks)
    assert count_prompt(parsed).limit % 75 == 0


@given(st.text(alphabet=st.characters(exclude_characters="()[]:|\\#<>")).filter(lambda text: "BREAK" not in text))
def test_text_without_signs_has_the_ids_of_its_tokens(text: str) -> None:
    [part] = parse_prompt(text, Lexicon(TOKENIZER, []), steps=5, negative=True).parts
    ids = [number for chunk in part.entries[0].chunks for number in chunk.ids[1 : 1 + chunk.used]]
    assert ids == TOKENIZER.ids(text)


@pytest.mark.parametrize("sign", ["(a", "(", "[", "[a:", "<a:", ": ", ":1", "AND ", "\\", "embedding:"])
def test_long_texts_of_signs_are_read_to_their_end(sign: str) -> None:
    assert parse((sign * 10_000)[:10_000], steps=500).parts[-1].entries[-1].until == 500


def test_a_lexicon_of_thousands_that_begin_alike_finds_the_right_one() -> None:
    lexicon = Lexicon(TOKENIZER, ((f"style-{number}", 1) for number in range(10_000)))
    [chunk] = lay_out("style-9999 style-99999 embedding:STYLE-1234", lexicon)
    assert [place.word for place in chunk.places] == ["style-9999", "style-9999", "style-1234"]
