"""Every prompt of the tables, read by the engine and by the reference, must be what the tables say."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from engine.prompt.layout import PLACEHOLDER, SLOTS, Chunk, Lexicon
from engine.prompt.parse import parse_prompt
from engine.prompt.tokenizer import PromptTokenizer, load_tokenizer
from tests.engine.prompt.prompts import CASES, TABLES, TOKENIZERS, WORDS, Case, read_case

VOCABULARIES = list(TOKENIZERS)
TABLE: dict[str, dict[str, Any]] = {
    name: json.loads((TABLES / f"{name}.json").read_text(encoding="utf-8")) for name in VOCABULARIES
}
LEXICONS = {name: Lexicon(load_tokenizer(folder), WORDS) for name, folder in TOKENIZERS.items()}
REFERENCES = {name: CLIPTokenizer.from_pretrained(str(folder)) for name, folder in TOKENIZERS.items()}

SIGNS = ["[", "]", "(", ")", ":", "|", "a", "mia", "foo", " ", "3", ".5", "\\", ", ", "BREAK", "AND", "embedding:", "#"]


def read(case: Case, vocabulary: str) -> dict[str, Any]:
    """What the engine makes of a case, in the form of the tables."""
    lexicon = LEXICONS[vocabulary]
    parsed = parse_prompt(
        case.text,
        lexicon,
        steps=case.steps,
        emphasis=case.emphasis,  # type: ignore[arg-type]
        negative=case.negative,
    )
    return {
        "tags": [[tag.kind, *tag.arguments] for tag in parsed.tags],
        "unknown": list(parsed.unknown),
        "parts": [
            {
                "weight": part.weight,
                "entries": [
                    [entry.until, [describe(chunk, lexicon.tokenizer) for chunk in entry.chunks]]
                    for entry in part.entries
                ],
            }
            for part in parsed.parts
        ],
    }


def describe(chunk: Chunk, tokenizer: PromptTokenizer) -> dict[str, Any]:
    slots, weights = chunk.ids[1 : 1 + chunk.used], chunk.weights[1 : 1 + chunk.used]
    padding = SLOTS - chunk.used
    assert (chunk.ids[0], *chunk.ids[1 + chunk.used :]) == (
        tokenizer.start_id,
        tokenizer.end_id,
        *[tokenizer.pad_id] * padding,
    )
    assert (chunk.weights[0], *chunk.weights[1 + chunk.used :]) == (1.0, 1.0, *[1.0] * padding)
    for place in chunk.places:
        assert set(chunk.ids[place.offset : place.offset + place.vectors]) == {PLACEHOLDER}
    return {
        "slots": list(slots),
        "places": [[place.word, place.offset, place.vectors] for place in chunk.places],
        "weights": [[weight, len(list(run))] for weight, run in groupby(weights)],
    }


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("case", CASES, ids=Case.key)
def test_the_engine_reads_what_the_table_says(case: Case, vocabulary: str) -> None:
    assert read(case, vocabulary) == TABLE[vocabulary][case.key()]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_reference_reads_what_the_table_says(vocabulary: str) -> None:
    rows = {case.key(): read_case(case, REFERENCES[vocabulary]) for case in CASES}
    assert rows == TABLE[vocabulary]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(SIGNS), max_size=24).map("".join), st.integers(1, 6), st.booleans())
def test_engine_and_reference_agree_on_prompts_of_signs(text: str, steps: int, negative: bool) -> None:
    case = Case(text, steps, negative=negative)
    assert read(case, "starter") == read_case(case, REFERENCES["starter"])
