"""Measures of what a generated picture shows: did it obey the prompt, and is it the character it should be?

Called by the demo and the tests. numpy and Pillow only, no torch; every number is a function of its arguments alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.models.starter.attributes import (
    COLOURS,
    HAIR_COLOURS,
    Colour,
    Expression,
    HairColour,
    Portrait,
    Pose,
    character,
    random_pose,
)
from engine.models.starter.drawing import draw
from engine.models.starter.palette import BACKGROUND, HAIR

_SIZE = 64
_CORNER = 12
_POSE_MARGIN = 3
_CELLS = 16

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AttributeShares:
    """Shares (0 to 1) of pictures whose dominant background and hair colour are those asked for."""

    background: float
    hair: float


@dataclass(frozen=True)
class Scene:
    """What a prompt asked for beside the character."""

    background: Colour
    expression: Expression


def check_attributes(pictures: Sequence[Image.Image], asked: Sequence[Portrait]) -> AttributeShares:
    """Compare each picture with the portrait asked for, which must have hair and the style "portrait"."""
    backgrounds = [
        background_colour(picture) == portrait.background for picture, portrait in zip(pictures, asked, strict=True)
    ]
    hairs = [
        hair_colour(picture, portrait) == portrait.hair_colour
        for picture, portrait in zip(pictures, asked, strict=True)
    ]
    return AttributeShares(float(np.mean(backgrounds)), float(np.mean(hairs)))


def background_colour(picture: Image.Image) -> Colour:
    """The background's colour word: the most frequent one among the pixels of the upper corners."""
    pixels = _pixels(picture)
    corners = np.concatenate([pixels[:_CORNER, :_CORNER], pixels[:_CORNER, -_CORNER:]]).reshape(-1, 3)
    palette = np.array([BACKGROUND[colour] for colour in COLOURS], np.float32)
    return COLOURS[_most_frequent(corners, palette)]


def hair_colour(picture: Image.Image, asked: Portrait) -> HairColour:
    """The hair's colour word: the most frequent one where a picture of `asked` has its hair, whatever the pose.

    Raises ValueError for a portrait that shows no hair.
    """
    region = _hair_region(asked)
    palette = np.array([HAIR[colour] for colour in HAIR_COLOURS], np.float32)
    return HAIR_COLOURS[_most_frequent(_pixels(picture)[region], palette)]


def identified(
    pictures: Sequence[Image.Image],
    subject: Portrait,
    scenes: Sequence[Scene],
    *,
    seed: int = 0,
    others: int = 49,
    poses: int = 8,
) -> float:
    """Share (0 to 1) of pictures that look more like `subject` than like any of `others` random characters.

    Nearness is the L2 distance of mean-pooled 16x16 pixels to the nearest of `poses` drawings of a candidate with the
    background and expression that the picture's prompt asked for.
    """
    candidates = _candidates(subject, seed, others)
    rng = random.Random(f"identified {seed}")
    placed = [Pose(), *(random_pose(rng) for _ in range(poses - 1))]
    drawn = {
        expression: _drawings(candidates, placed, expression) for expression in {scene.expression for scene in scenes}
    }
    hits = 0
    for picture, scene in zip(pictures, scenes, strict=True):
        figures, backdrop_share = drawn[scene.expression]
        looks = figures + backdrop_share * np.array(BACKGROUND[scene.background], np.float32)
        distances = np.square(looks - _pool(_pixels(picture))).sum(axis=(2, 3, 4)).min(axis=1)
        hits += int(distances.argmin() == 0)
    return hits / len(pictures)


def _candidates(subject: Portrait, seed: int, others: int) -> list[Portrait]:
    """`subject` first, then random characters that differ from it and from each other."""
    candidates = [subject]
    rng = random.Random(f"candidates {seed}")
    while len(candidates) <= others:
        other = character(rng.randrange(1 << 32))
        if other not in candidates:
            candidates.append(other)
    return candidates


def _drawings(candidates: Sequence[Portrait], poses: Sequence[Pose], expression: Expression) -> tuple[_Floats, _Floats]:
    """Pooled drawings without their background, (candidates, poses, 16, 16, 3), and how much of each cell and channel
    is background. Drawing on two backgrounds separates the two exactly, because pooling is linear."""
    dark, light = (np.array(BACKGROUND[colour], np.float32) for colour in ("black", "white"))
    shape = (len(candidates), len(poses), _CELLS, _CELLS, 3)
    on_dark, on_light = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for row, candidate in enumerate(candidates):
        for column, pose in enumerate(poses):
            for target, background in ((on_dark, "black"), (on_light, "white")):
                portrait = replace(candidate, expression=expression, background=cast(Colour, background))
                target[row, column] = _pool(_pixels(draw(portrait, pose)))
    share = ((on_light - on_dark) / (light - dark)).astype(np.float32)
    return (on_dark - share * dark).astype(np.float32), share


def _hair_region(asked: Portrait) -> NDArray[np.bool_]:
    """(64, 64): pixels that are hair in every pose; found as those that change with the hair's colour."""
    black = _pixels(draw(replace(asked, hair_colour="black")))
    white = _pixels(draw(replace(asked, hair_colour="white")))
    hair = np.abs(white - black).min(axis=2) > 150
    for margin in range(_POSE_MARGIN, -1, -1):
        region = _erode(hair, margin)
        if region.sum() >= 24 or (margin == 0 and region.any()):
            return region
    raise ValueError(f"no hair to look at: {asked}")


def _erode(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    padded = np.pad(mask, margin)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * margin + 1, 2 * margin + 1))
    return cast(NDArray[np.bool_], windows.all(axis=(2, 3)))


def _most_frequent(pixels: _Floats, palette: _Floats) -> int:
    nearest = np.square(pixels[:, None] - palette[None]).sum(axis=2).argmin(axis=1)
    return int(np.bincount(nearest, minlength=len(palette)).argmax())


def _pixels(picture: Image.Image) -> _Floats:
    if picture.size != (_SIZE, _SIZE):
        picture = picture.resize((_SIZE, _SIZE), Image.Resampling.BOX)
    return np.asarray(picture.convert("RGB"), np.float32)


def _pool(pixels: _Floats) -> _Floats:
    cell = _SIZE // _CELLS
    return cast(_Floats, pixels.reshape(_CELLS, cell, _CELLS, cell, 3).mean(axis=(1, 3)))
