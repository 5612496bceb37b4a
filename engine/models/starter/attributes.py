"""What a portrait can show: one closed set of words for each attribute, and the combinations that training never sees.

Used by `portraits.py` and everything that draws, describes or measures portraits. No torch. The words here are the very
words of the captions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal, get_args

Person = Literal["woman", "man", "girl", "boy"]
HairColour = Literal["black", "brown", "blonde", "red", "orange", "pink", "purple", "blue", "green", "white", "grey"]
HairStyle = Literal["short", "long", "twintails", "bun", "bald", "mohawk", "curly"]
EyeColour = Literal["blue", "green", "brown", "red", "yellow", "purple"]
Skin = Literal["pale", "tan", "dark", "green", "blue"]
Ears = Literal["none", "cat", "bunny", "bear"]
Accessory = Literal["none", "glasses", "hat", "bow", "crown"]
Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "grey"]
Pattern = Literal["plain", "striped", "dotted"]
Expression = Literal["smiling", "sad", "surprised", "neutral"]
Style = Literal["portrait", "ink drawing", "pixel art", "pencil sketch"]

PERSONS: tuple[Person, ...] = get_args(Person)
HAIR_COLOURS: tuple[HairColour, ...] = get_args(HairColour)
HAIR_STYLES: tuple[HairStyle, ...] = get_args(HairStyle)
EYE_COLOURS: tuple[EyeColour, ...] = get_args(EyeColour)
SKINS: tuple[Skin, ...] = get_args(Skin)
EARS: tuple[Ears, ...] = get_args(Ears)
ACCESSORIES: tuple[Accessory, ...] = get_args(Accessory)
COLOURS: tuple[Colour, ...] = get_args(Colour)
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
EXPRESSIONS: tuple[Expression, ...] = get_args(Expression)
STYLES: tuple[Style, ...] = get_args(Style)

UNNATURAL_HAIR: frozenset[HairColour] = frozenset({"pink", "purple", "blue", "green", "white"})
"""Hair colours that, together with animal ears and a patterned shirt, training never shows."""

_HAIR_STYLE_WEIGHTS = (5, 5, 5, 4, 2, 4, 4)
_SKIN_WEIGHTS = (6, 5, 5, 1, 1)
_EARS_WEIGHTS = (7, 4, 4, 4)
_ACCESSORY_WEIGHTS = (5, 4, 3, 4, 3)
_PATTERN_WEIGHTS = (5, 4, 4)
_STYLE_WEIGHTS = (11, 3, 3, 3)


@dataclass(frozen=True)
class Portrait:
    """One picture's contents. `accessory_colour` has no meaning without an accessory, `hair_colour` none when bald
    and without animal ears (which have the colour of the hair)."""

    person: Person
    hair_colour: HairColour
    hair_style: HairStyle
    eye_colour: EyeColour
    skin: Skin
    ears: Ears
    accessory: Accessory
    accessory_colour: Colour
    shirt_colour: Colour
    pattern: Pattern
    expression: Expression = "neutral"
    background: Colour = "white"
    style: Style = "portrait"


@dataclass(frozen=True)
class Pose:
    """Variation that no caption names: shifts in pixels of a 64-pixel picture, and a scale about the middle."""

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0


def held_out(portrait: Portrait) -> bool:
    """True for what training never shows: unnatural hair, animal ears and a patterned shirt, all at once."""
    return portrait.hair_colour in UNNATURAL_HAIR and portrait.ears != "none" and portrait.pattern != "plain"


def random_portrait(rng: random.Random) -> Portrait:
    """A portrait as training may see it, every attribute at random; never one that `held_out` holds out."""
    while held_out(portrait := _any_portrait(rng)):
        pass
    return portrait


def random_pose(rng: random.Random) -> Pose:
    return Pose(dx=rng.uniform(-2.5, 2.5), dy=rng.uniform(-2.0, 2.0), scale=rng.uniform(0.93, 1.07))


def character(seed: int) -> Portrait:
    """The character of a seed: always a held-out combination, with visible hair, natural skin and an accessory."""
    rng = random.Random(f"character {seed}")
    return replace(
        _any_portrait(rng),
        hair_colour=rng.choice(sorted(UNNATURAL_HAIR)),
        hair_style=rng.choice([style for style in HAIR_STYLES if style != "bald"]),
        skin=rng.choice(SKINS[:3]),
        ears=rng.choice(EARS[1:]),
        accessory=rng.choice(ACCESSORIES[1:]),
        pattern=rng.choice(PATTERNS[1:]),
        expression="neutral",
        background="white",
        style="portrait",
    )


def vary(portrait: Portrait, rng: random.Random) -> Portrait:
    """The same character with another expression and background; person, looks and drawing style stay."""
    return replace(portrait, expression=rng.choice(EXPRESSIONS), background=rng.choice(COLOURS))


def _any_portrait(rng: random.Random) -> Portrait:
    return Portrait(
        person=rng.choice(PERSONS),
        hair_colour=rng.choice(HAIR_COLOURS),
        hair_style=rng.choices(HAIR_STYLES, _HAIR_STYLE_WEIGHTS)[0],
        eye_colour=rng.choice(EYE_COLOURS),
        skin=rng.choices(SKINS, _SKIN_WEIGHTS)[0],
        ears=rng.choices(EARS, _EARS_WEIGHTS)[0],
        accessory=rng.choices(ACCESSORIES, _ACCESSORY_WEIGHTS)[0],
        accessory_colour=rng.choice(COLOURS),
        shirt_colour=rng.choice(COLOURS),
        pattern=rng.choices(PATTERNS, _PATTERN_WEIGHTS)[0],
        expression=rng.choice(EXPRESSIONS),
        background=rng.choice(COLOURS),
        style=rng.choices(STYLES, _STYLE_WEIGHTS)[0],
    )
