"""Colours of the portraits: one RGB value (0 to 255) for each colour word of hair, skin, eyes, cloth and background.

Used by `drawing.py` to draw and by `measure.py` to recognise. No torch.
"""

from __future__ import annotations

Rgb = tuple[int, int, int]

HAIR: dict[str, Rgb] = {
    "black": (38, 34, 42),
    "brown": (112, 66, 34),
    "blonde": (242, 212, 98),
    "red": (196, 36, 40),
    "orange": (242, 128, 28),
    "pink": (252, 132, 188),
    "purple": (126, 52, 176),
    "blue": (44, 84, 222),
    "green": (40, 158, 66),
    "white": (246, 246, 248),
    "grey": (148, 148, 154),
}
SKIN: dict[str, Rgb] = {
    "pale": (255, 226, 204),
    "tan": (222, 166, 120),
    "dark": (132, 84, 56),
    "green": (150, 206, 120),
    "blue": (132, 182, 236),
}
EYE: dict[str, Rgb] = {
    "blue": (40, 110, 240),
    "green": (30, 170, 70),
    "brown": (120, 66, 28),
    "red": (226, 30, 40),
    "yellow": (246, 200, 20),
    "purple": (150, 50, 200),
}
CLOTH: dict[str, Rgb] = {
    "red": (214, 40, 44),
    "orange": (244, 136, 32),
    "yellow": (248, 216, 48),
    "green": (44, 162, 74),
    "blue": (46, 96, 214),
    "purple": (134, 60, 184),
    "pink": (246, 140, 190),
    "white": (246, 246, 246),
    "black": (44, 42, 50),
    "grey": (146, 146, 152),
}
BACKGROUND: dict[str, Rgb] = {
    "red": (226, 74, 74),
    "orange": (250, 164, 78),
    "yellow": (250, 230, 104),
    "green": (112, 200, 112),
    "blue": (100, 156, 242),
    "purple": (164, 112, 218),
    "pink": (252, 178, 212),
    "white": (250, 250, 250),
    "black": (42, 42, 48),
    "grey": (176, 176, 182),
}


def mix(colour: Rgb, other: Rgb, share: float) -> Rgb:
    """`colour` with `share` (0 to 1) of `other`."""
    return _rgb(*(a + (b - a) * share for a, b in zip(colour, other, strict=True)))


def shade(colour: Rgb, factor: float) -> Rgb:
    """`colour` made darker: each channel times `factor` (0 to 1)."""
    return _rgb(*(channel * factor for channel in colour))


def _rgb(red: float, green: float, blue: float) -> Rgb:
    return round(red), round(green), round(blue)
