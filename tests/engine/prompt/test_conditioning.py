from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engine.models.load import Model
from engine.prompt import conditioning
from engine.prompt.conditioning import ConditioningCache, condition
from engine.prompt.encode import encode_prompts
from engine.prompt.layout import Lexicon, lay_out


@pytest.fixture
def model(starter: Model) -> Model:
    """The starter with a cache of its own."""
    return replace(starter, conditioning=ConditioningCache())


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each pass of the text encoder."""
    made: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(options)
        return encode_prompts(*arguments, **options)

    monkeypatch.setattr(conditioning, "encode_prompts", counted)
    return made


def ask(model: Model, text: str = "a (lyra:1.2)", seed: int = 1, **options: Any) -> Any:
    lexicon = Lexicon(model.tokenizer, [("lyra", 2)])
    vectors = np.random.default_rng(seed).normal(size=(2, model.entry.width)).astype(np.float32)
    settings: dict[str, Any] = {"shares": (1,), "emphasis": "Original", "clip_skip": 1} | options
    return condition(model, [lay_out(text, lexicon)], {"lyra": vectors}, **settings).hidden


def test_equal_questions_are_encoded_once(model: Model, passes: list[Any]) -> None:
    first = ask(model)
    assert ask(model) is first
    assert len(passes) == 1
    assert not first.requires_grad


@pytest.mark.parametrize(
    "change",
    [{"text": "a (lyra:1.3)"}, {"text": "the (lyra:1.2)"}, {"emphasis": "No norm"}, {"clip_skip": 2}, {"seed": 2}],
)
def test_whatever_changes_the_conditioning_is_encoded_anew(model: Model, change: dict[str, Any]) -> None:
    assert not torch.equal(ask(model), ask(model, **change))


def test_a_word_with_other_vectors_under_the_same_name_is_never_served_stale(model: Model) -> None:
    before = ask(model, seed=1)
    after = ask(model, seed=2)
    fresh = ask(replace(model, conditioning=ConditioningCache()), seed=2)
    assert torch.equal(after, fresh)
    assert torch.equal(ask(model, seed=1), before)


def test_what_was_used_least_recently_makes_room(model: Model, passes: list[Any]) -> None:
    size = ask(model, "a").nbytes
    small = replace(model, conditioning=ConditioningCache(limit_bytes=2 * size))
    passes.clear()
    for text in ("a", "girl", "a", "boy", "a"):
        ask(small, text)
    assert len(passes) == 3
    ask(small, "girl")
    assert len(passes) == 4


def test_what_is_larger_than_the_cache_is_given_and_not_kept(model: Model, passes: list[Any]) -> None:
    tiny = replace(model, conditioning=ConditioningCache(limit_bytes=10))
    assert torch.equal(ask(tiny), ask(tiny))
    assert len(passes) == 2
