"""Tags of hypernetworks: what they say, and what people are told of them."""

from __future__ import annotations

import pytest

from engine.models.catalog import find_model
from engine.prompt.layout import Lexicon
from engine.prompt.notes import note_prompts
from engine.prompt.parse import parse_prompt
from engine.prompt.tags import HypernetTag, read_hypernet, take_tags
from engine.prompt.tokenizer import load_tokenizer

STARTER = find_model("starter", [])
LEXICON = Lexicon(load_tokenizer(STARTER.path / "tokenizer"), [])


def notes(prompt: str, **known: tuple[str, str]) -> list[tuple[str, str]]:
    parsed = parse_prompt(prompt, LEXICON, steps=5)
    return [(note.code, note.title) for note in note_prompts([parsed], {}, STARTER, known)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("<hypernet:ink>", HypernetTag("ink", 1.0)),
        ("<hypernet:ink:0.7>", HypernetTag("ink", 0.7)),
        ("<HYPERNET: Ink : -.5 >", HypernetTag("Ink", -0.5)),
        ("<hypernet:ink:0>", HypernetTag("ink", 0.0)),
        ("<hypernet:ink:much>", None),
        ("<hypernet:ink:nan>", None),
        ("<hypernet:ink:1e999>", None),
        ("<hypernet:ink:1:2>", None),
        ("<hypernet: >", None),
        ("<lora:ink:1>", None),
    ],
)
def test_a_tag_names_a_hypernetwork_with_its_strength(text: str, named: HypernetTag | None) -> None:
    rest, (tag,) = take_tags(f"a {text} girl")
    assert (rest, read_hypernet(tag)) == ("a  girl", named)


def test_a_known_hypernetwork_needs_no_note() -> None:
    assert notes("a <hypernet:Ink:0.5> girl", ink=("", "")) == []


@pytest.mark.parametrize(
    ("prompt", "code", "part"),
    [
        ("<hypernet:ink>", "prompt.unknown_hypernetwork", "no hypernetwork 'ink'"),
        ("<hypernet:oil:much>", "prompt.tag", "takes a number"),
        ("<lora:ink:1>", "prompt.tag", "<embedding:...> and <hypernet:...>"),
        ("<hypernet:oil>", "prompt.other_model", "'oil' was trained on anime, not on starter"),
    ],
)
def test_what_a_tag_cannot_do_is_told_once(prompt: str, code: str, part: str) -> None:
    ((told, title),) = notes(f"{prompt} a girl {prompt}", oil=("anime", ""))
    assert told == code
    assert part in title
