"""Portraits: the same for the same seed, labelled truly, and never a combination that is held out."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.models.starter import sample
from engine.models.starter.attributes import (
    COLOURS,
    EARS,
    EXPRESSIONS,
    EYE_COLOURS,
    HAIR_COLOURS,
    HAIR_STYLES,
    PATTERNS,
    UNNATURAL_HAIR,
    Portrait,
    Pose,
    character,
    held_out,
    random_portrait,
    random_pose,
    vary,
)
from engine.models.starter.captions import caption, description
from engine.models.starter.drawing import draw
from engine.models.starter.portraits import main, write_pictures


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_pictures(tmp_path / name, 6, seed=3)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")
    assert len(_contents(tmp_path / "one")) == 12


def test_another_seed_writes_other_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", 6, seed=3)
    write_pictures(tmp_path / "two", 6, seed=4)
    assert _contents(tmp_path / "one") != _contents(tmp_path / "two")


def test_the_command_line_draws_one_character_and_names_only_what_varies(tmp_path: Path) -> None:
    main([str(tmp_path / "out"), "--count", "5", "--seed", "1", "--character", "9"])
    captions = [path.read_text().strip() for path in sorted((tmp_path / "out").glob("*.txt"))]
    assert len(captions) == 5
    for text in captions:
        expression, background = text.split(", ")
        assert expression in EXPRESSIONS
        assert background.removesuffix(" background") in COLOURS


def test_a_count_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--count", "0"])


def test_training_never_draws_a_held_out_combination() -> None:
    rng = random.Random(0)
    for _ in range(20_000):
        portrait = random_portrait(rng)
        assert not (portrait.hair_colour in UNNATURAL_HAIR and portrait.ears != "none" and portrait.pattern != "plain")


def test_every_character_is_a_held_out_combination() -> None:
    assert all(held_out(character(seed)) for seed in range(500))
    assert held_out(sample.CHARACTER)


def test_training_covers_every_pair_of_attributes_that_a_character_combines() -> None:
    rng = random.Random(1)
    portraits = [random_portrait(rng) for _ in range(20_000)]
    hair_and_ears = {(portrait.hair_colour, portrait.ears) for portrait in portraits}
    hair_and_pattern = {(portrait.hair_colour, portrait.pattern) for portrait in portraits}
    ears_and_pattern = {(portrait.ears, portrait.pattern) for portrait in portraits}
    styles_and_eyes = {(portrait.hair_style, portrait.eye_colour) for portrait in portraits}
    assert len(hair_and_ears) == len(HAIR_COLOURS) * len(EARS)
    assert len(hair_and_pattern) == len(HAIR_COLOURS) * len(PATTERNS)
    assert len(ears_and_pattern) == len(EARS) * len(PATTERNS)
    assert len(styles_and_eyes) == len(HAIR_STYLES) * len(EYE_COLOURS)


def test_a_caption_names_only_what_is_true() -> None:
    rng = random.Random(2)
    for _ in range(2_000):
        portrait = random_portrait(rng)
        text = caption(portrait, rng)
        assert portrait.person in text.split(",")[0].split()
        truth = set(_true_phrases(portrait))
        _, *rest = text.split(" with ", 1)
        phrases = (rest[0] if rest else text.split(", ", 1)[1] if ", " in text else "").split(", ")
        assert set(filter(None, phrases)) <= truth, text


def _true_phrases(portrait: Portrait) -> list[str]:
    character_phrases = description(portrait).split(" with ", 1)[1].split(", ")
    return [
        *character_phrases,
        f"{portrait.hair_colour} hair",
        portrait.expression,
        f"{portrait.background} background",
    ]


def test_a_description_names_every_trait_of_the_character() -> None:
    portrait = Portrait("girl", "white", "twintails", "red", "pale", "bunny", "bow", "orange", "purple", "striped")
    assert description(portrait) == (
        "a girl with white twintails, red eyes, bunny ears, orange bow, pale skin, striped purple shirt"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"hair_colour": "green"},
        {"hair_style": "mohawk"},
        {"eye_colour": "blue"},
        {"skin": "dark"},
        {"ears": "bear"},
        {"accessory": "glasses"},
        {"accessory_colour": "green"},
        {"shirt_colour": "yellow"},
        {"pattern": "plain"},
        {"expression": "sad"},
        {"background": "blue"},
        {"person": "man"},
        {"style": "pencil sketch"},
    ],
)
def test_every_attribute_shows_in_the_picture(change: dict[str, str]) -> None:
    changed = replace(sample.CHARACTER, **change)  # type: ignore[arg-type]
    difference = np.abs(np.asarray(draw(changed), int) - np.asarray(draw(sample.CHARACTER), int))
    assert (difference.max(axis=2) > 40).sum() >= 20


def test_a_pose_moves_the_figure_and_not_the_background() -> None:
    here, there = (np.asarray(draw(sample.CHARACTER, pose), int) for pose in (Pose(), Pose(dx=2.5, scale=1.05)))
    assert (here != there).any()
    assert (here[:5, :5] == there[:5, :5]).all()


def test_the_sample_pictures_are_the_ones_that_the_character_draws(tmp_path: Path) -> None:
    for folder, count, seed in ((sample.TRAIN_DIR, 12, 1), (sample.HELD_OUT_DIR, 8, 2)):
        write_pictures(tmp_path / folder.name, count, seed, sample.CHARACTER_SEED)
        assert _contents(folder) == _contents(tmp_path / folder.name)


def test_varying_a_character_keeps_its_description() -> None:
    rng = random.Random(4)
    portraits = [vary(sample.CHARACTER, rng) for _ in range(50)]
    assert {description(portrait) for portrait in portraits} == {sample.ORACLE_TEXT}
    assert len({portrait.background for portrait in portraits}) == len(COLOURS)


def test_poses_keep_the_figure_in_the_picture() -> None:
    rng = random.Random(5)
    for _ in range(200):
        pose = random_pose(rng)
        assert abs(pose.dx) <= 2.5
        assert abs(pose.dy) <= 2.0
        assert 0.93 <= pose.scale <= 1.07
