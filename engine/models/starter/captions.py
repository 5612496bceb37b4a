"""Captions for portraits: the prompts that the starter model learns to follow.

Used by `portraits.py` and by `build.py` for training. No torch. A caption never says anything that the picture does not
show; it may leave things out, as people do.
"""

from __future__ import annotations

import random

from engine.models.starter.attributes import Portrait

_BARE_SHARE = 0.16
"""Share of captions that name no looks at all ("portrait of a girl, smiling, green background")."""

_KEEP_ALL_SHARE = 0.55
_KEEP_PART = 0.7
_BACKGROUND_SHARE = 0.85
_EXPRESSION_SHARE = 0.7
_PLAIN_WORDS = ("portrait", "picture", "photo", "cartoon", "")
_PLAIN_WEIGHTS = (76, 7, 7, 4, 6)
"""What people call a picture drawn in no particular style."""


def caption(portrait: Portrait, rng: random.Random) -> str:
    """A true caption of one portrait, worded, ordered and shortened at random."""
    subject = f"{_article(portrait.person, rng)}{portrait.person}"
    if rng.random() >= _BARE_SHARE:
        subject = f"{subject} with {', '.join(_some_parts(portrait, rng))}"
    if style := _style(portrait, rng):
        subject = f"{_article(style, rng) if rng.random() < 0.2 else ''}{style} of {subject}"
    tail: list[str] = [portrait.expression] if rng.random() < _EXPRESSION_SHARE else []
    if rng.random() < _BACKGROUND_SHARE:
        tail.append(f"{portrait.background} background")
    return ", ".join([subject, *tail])


def description(portrait: Portrait) -> str:
    """The whole truth about the character alone: everything but expression, background and drawing style."""
    return f"a {portrait.person} with {', '.join(_parts(portrait))}"


def varying_caption(portrait: Portrait) -> str:
    """What differs between pictures of one character, as [filewords] for training a word: expression and background."""
    return f"{portrait.expression}, {portrait.background} background"


def _style(portrait: Portrait, rng: random.Random) -> str:
    if portrait.style == "portrait":
        return rng.choices(_PLAIN_WORDS, _PLAIN_WEIGHTS)[0]
    return portrait.style


def _parts(portrait: Portrait) -> list[str]:
    parts = [_hair(portrait), f"{portrait.eye_colour} eyes"]
    if portrait.ears != "none":
        parts.append(f"{portrait.ears} ears")
    if portrait.accessory != "none":
        parts.append(_accessory(portrait))
    pattern = "" if portrait.pattern == "plain" else f"{portrait.pattern} "
    return [*parts, f"{portrait.skin} skin", f"{pattern}{portrait.shirt_colour} shirt"]


def _some_parts(portrait: Portrait, rng: random.Random) -> list[str]:
    parts = _parts(portrait)
    if portrait.hair_style != "bald" and rng.random() < 0.08:
        parts[0] = f"{portrait.hair_colour} hair"
    if portrait.skin in ("pale", "tan", "dark") and rng.random() < 0.35:
        parts = [part for part in parts if not part.endswith(" skin")]
    rng.shuffle(parts)
    if rng.random() < _KEEP_ALL_SHARE:
        return parts
    return [part for part in parts if rng.random() < _KEEP_PART] or parts[:1]


def _hair(portrait: Portrait) -> str:
    colour, style = portrait.hair_colour, portrait.hair_style
    if style == "bald":
        return "bald head"
    if style in ("twintails", "bun", "mohawk"):
        return f"{colour} {style}"
    return f"{style} {colour} hair"


def _accessory(portrait: Portrait) -> str:
    return f"{portrait.accessory_colour} {portrait.accessory}"


def _article(noun: str, rng: random.Random) -> str:
    """An article for nine nouns in ten; none for the rest, so that a bare word after "of" is no surprise."""
    if rng.random() < 0.1:
        return ""
    return "an " if noun[0] in "aeiou" else "a "
