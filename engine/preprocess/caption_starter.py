"""The starter model's own labels for the portraits that its drawing program drew, read off the picture.

Opened by caption.py, in the process that prepares pictures; numpy and Pillow only. A portrait is a choice from closed
sets of words, so it is found by drawing: of each attribute in turn, the word whose drawing is nearest to the picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.models.starter.attributes import HAIR_STYLES, STYLES, Portrait, Pose
from engine.models.starter.captions import description
from engine.models.starter.drawing import draw

_SIZE = 64
_SURE, _FOUND, _HOPELESS = 1.5, 6.0, 40.0
"""Mean distance of a channel, of 255, between a picture and the drawing of its portrait: 0.5 to 1.4 for one as it was
drawn, 2 to 5 for one that was resized since. Where even a first search ends above the last number, the picture is none
of the program's."""

_GROUPS = (
    ("background",),
    ("style",),
    ("hair_style", "hair_colour"),
    ("skin",),
    ("ears",),
    ("shirt_colour", "pattern"),
    ("accessory", "accessory_colour"),
    ("person",),
    ("eye_colour",),
    ("expression",),
)
"""Attributes that are looked for together, those that cover most of the picture first."""

_WORDS = {name: kind.__args__ for name, kind in get_type_hints(Portrait).items()}
_FIRST = Portrait("woman", "brown", "short", "blue", "pale", "none", "none", "red", "red", "plain")
_STEPS = ((1.0, 0.5, 0.25), (0.5, 0.25, 0.1))
"""By how many pixels a pose is moved, in the first round and in later ones."""
_SCALE_STEP = 0.03
_MAX_ROUNDS = 6

_Pixels = NDArray[np.int16]


@dataclass(frozen=True)
class _Guess:
    portrait: Portrait
    pose: Pose
    distance: float


def label_portrait(picture: Image.Image) -> str:
    """The full caption of a whole picture that the starter's drawing program drew, at any size, mirrored or not;
    empty for any other."""
    portrait = recognise(picture)
    if portrait is None:
        return ""
    style = portrait.style
    article = "an" if style[0] in "aeiou" else "a"
    subject = description(portrait) if style == "portrait" else f"{article} {style} of {description(portrait)}"
    return f"{subject}, {portrait.expression}, {portrait.background} background"


def recognise(picture: Image.Image) -> Portrait | None:
    """What the picture shows, None when it is none of these drawings; a colour that nothing shows is arbitrary."""
    small = picture.convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BOX)
    targets = (_pixels(small), _pixels(ImageOps.mirror(small)))
    for first in _starts():
        best = _search(targets[0], first)
        if best.distance > _SURE:  # mirrored, perhaps: only bows are not the same both ways
            best = min(best, _search(targets[1], first), key=lambda guess: guess.distance)
        if best.distance < _FOUND:
            return best.portrait
        if best.distance > _HOPELESS:
            break
    return None


def _starts() -> Iterator[Portrait]:
    """Style and hair change most of the picture, so each kind of them is a start, should the first not do."""
    yield _FIRST
    for style in STYLES[1:]:
        yield replace(_FIRST, style=style)
    for hair_style in HAIR_STYLES[1:]:
        yield replace(_FIRST, hair_style=hair_style)


def _search(target: _Pixels, portrait: Portrait) -> _Guess:
    """Descend from a portrait to the nearest drawing that no single change makes nearer."""
    guess = _Guess(portrait, Pose(), _distance(target, portrait, Pose()))
    for number in range(_MAX_ROUNDS):
        before = guess.distance
        for group in _GROUPS:
            guess = _choose_words(target, guess, group)
        for step in _STEPS[min(number, len(_STEPS) - 1)]:
            guess = _settle_pose(target, guess, step)
        if guess.distance == before:
            break
    return guess


def _choose_words(target: _Pixels, guess: _Guess, group: tuple[str, ...]) -> _Guess:
    for words in itertools.product(*(_WORDS[name] for name in group)):
        changes: dict[str, Any] = dict(zip(group, words, strict=True))
        guess = _nearer(target, guess, replace(guess.portrait, **changes), guess.pose)
    return guess


def _settle_pose(target: _Pixels, guess: _Guess, step: float) -> _Guess:
    while True:
        before = guess
        for name, size in (("dx", step), ("dy", step), ("scale", step * _SCALE_STEP)):
            for change in (-size, size):
                pose = replace(guess.pose, **{name: getattr(guess.pose, name) + change})
                guess = _nearer(target, guess, guess.portrait, pose)
        if guess is before:
            return guess


def _nearer(target: _Pixels, guess: _Guess, portrait: Portrait, pose: Pose) -> _Guess:
    distance = _distance(target, portrait, pose)
    return _Guess(portrait, pose, distance) if distance < guess.distance else guess


def _distance(target: _Pixels, portrait: Portrait, pose: Pose) -> float:
    return float(np.abs(_pixels(draw(portrait, pose, _SIZE)) - target).mean())


def _pixels(picture: Image.Image) -> _Pixels:
    return np.asarray(picture, np.int16)
