"""The starter's labels, read off the pictures that its drawing program draws."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageOps

from engine.models.starter.portraits import Portrait, description, draw, random_portrait, random_pose
from engine.models.starter.sample import CHARACTER, TRAIN_DIR
from engine.preprocess.caption_starter import label_portrait, recognise


def shown(portrait: Portrait | None) -> Portrait | None:
    """The portrait without colours that nothing shows."""
    if portrait is None:
        return None
    changes: dict[str, Any] = {"accessory_colour": "red"} if portrait.accessory == "none" else {}
    if portrait.hair_style == "bald" and portrait.ears == "none":
        changes["hair_colour"] = "red"
    return replace(portrait, **changes)


@pytest.mark.parametrize("seed", range(6))
def test_a_drawn_portrait_is_recognised(seed: int) -> None:
    rng = random.Random(seed)
    portrait = random_portrait(rng)
    assert shown(recognise(draw(portrait, random_pose(rng)))) == shown(portrait)


@pytest.mark.parametrize(
    "change", [ImageOps.mirror, lambda picture: picture.resize((512, 512), Image.Resampling.LANCZOS)]
)
def test_a_mirrored_or_enlarged_one_too(change: Any) -> None:
    portrait = replace(random_portrait(random.Random(3)), accessory="bow", style="pencil sketch")
    assert shown(recognise(change(draw(portrait)))) == shown(portrait)


def test_pictures_of_the_sample_character_get_its_description() -> None:
    with Image.open(TRAIN_DIR / "0000.png") as picture:
        label = label_portrait(picture)
    scene = (TRAIN_DIR / "0000.txt").read_text().strip()
    assert label == f"{description(CHARACTER)}, {scene}"


def test_another_picture_has_no_label() -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    assert label_portrait(noise) == ""
