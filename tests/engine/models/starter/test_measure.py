"""The measures, tried on drawings whose contents are known: right on what is right, and wrong on what is wrong."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from PIL import Image

from engine.models.starter import sample
from engine.models.starter.attributes import Portrait, character, random_portrait, random_pose, vary
from engine.models.starter.drawing import draw
from engine.models.starter.measure import Scene, background_colour, check_attributes, hair_colour, identified


def _portraits(count: int) -> list[Portrait]:
    rng = random.Random(6)
    portraits: list[Portrait] = []
    while len(portraits) < count:
        portrait = replace(random_portrait(rng), style="portrait")
        if portrait.hair_style != "bald":
            portraits.append(portrait)
    return portraits


def _pictures(portraits: list[Portrait]) -> list[Image.Image]:
    rng = random.Random(7)
    return [draw(portrait, random_pose(rng)) for portrait in portraits]


def test_drawings_show_the_background_and_hair_that_they_were_drawn_with() -> None:
    portraits = _portraits(200)
    shares = check_attributes(_pictures(portraits), portraits)
    assert shares.background == 1.0
    assert shares.hair >= 0.99


def test_pictures_of_other_portraits_do_not_pass_the_attribute_check() -> None:
    portraits = _portraits(200)
    shares = check_attributes(_pictures(portraits[::-1]), portraits)
    assert shares.background < 0.25
    assert shares.hair < 0.25


def test_a_wrong_hair_colour_is_named() -> None:
    asked = _portraits(1)[0]
    shown = replace(asked, hair_colour="green" if asked.hair_colour != "green" else "red", background="pink")
    assert hair_colour(draw(shown), asked) == shown.hair_colour
    assert background_colour(draw(shown)) == "pink"


def test_a_bald_portrait_has_no_hair_to_look_at() -> None:
    with pytest.raises(ValueError, match="no hair"):
        hair_colour(Image.new("RGB", (64, 64)), replace(sample.CHARACTER, hair_style="bald", ears="none"))


def _scenes(subject: Portrait) -> tuple[list[Image.Image], list[Scene]]:
    rng = random.Random(8)
    shown = [vary(subject, rng) for _ in range(32)]
    pictures = [draw(portrait, random_pose(rng)) for portrait in shown]
    return pictures, [Scene(portrait.background, portrait.expression) for portrait in shown]


@pytest.mark.parametrize("seed", [sample.CHARACTER_SEED, 11])
def test_drawings_of_a_character_are_identified_as_it(seed: int) -> None:
    pictures, scenes = _scenes(character(seed))
    assert identified(pictures, character(seed), scenes) == 1.0


def test_drawings_of_another_character_are_not_identified_as_it() -> None:
    pictures, scenes = _scenes(character(12))
    assert identified(pictures, sample.CHARACTER, scenes) <= 0.1


def test_identification_does_not_depend_on_the_global_random_state() -> None:
    pictures, scenes = _scenes(sample.CHARACTER)
    random.seed(1)
    first = identified(pictures[:4], sample.CHARACTER, scenes[:4], seed=3)
    random.seed(2)
    assert identified(pictures[:4], sample.CHARACTER, scenes[:4], seed=3) == first


def test_the_sample_prompts_cover_every_background_and_expression() -> None:
    assert len(sample.PROMPTS) == 32
    assert len({prompt.scene.background for prompt in sample.PROMPTS}) == 10
    assert len({prompt.scene.expression for prompt in sample.PROMPTS}) == 4
    for prompt in sample.PROMPTS:
        assert "[name]" in prompt.text
        assert f"{prompt.scene.expression}, {prompt.scene.background} background" in prompt.text
