"""Draws one portrait with Pillow: flat shapes on a 64-unit canvas, four times oversampled.

Called by `portraits.py`. No torch, no randomness: the same portrait, pose and size give the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from engine.models.starter.attributes import Portrait, Pose
from engine.models.starter.palette import BACKGROUND, CLOTH, EYE, HAIR, SKIN, Rgb, mix, shade

_OVERSAMPLING = 4
_MIDDLE = (32.0, 36.0)
_BLACK: Rgb = (22, 20, 26)
_INNER_EAR: Rgb = (245, 150, 165)
_LIPS: Rgb = (190, 55, 65)
_PAPER: Rgb = (248, 246, 240)


@dataclass(frozen=True)
class _Pen:
    """Draws in 64-unit coordinates through a pose; every filled shape has an outline of the style's kind."""

    canvas: ImageDraw.ImageDraw
    pixels_per_unit: float
    pose: Pose
    style: str

    def at(self, x: float, y: float) -> tuple[float, float]:
        scale, unit = self.pose.scale, self.pixels_per_unit
        return (
            ((x - _MIDDLE[0]) * scale + _MIDDLE[0] + self.pose.dx) * unit,
            ((y - _MIDDLE[1]) * scale + _MIDDLE[1] + self.pose.dy) * unit,
        )

    def width(self, units: float) -> int:
        return max(1, round(units * self.pixels_per_unit * self.pose.scale))

    def tint(self, colour: Rgb) -> Rgb:
        return mix(colour, _PAPER, 0.5) if self.style == "pencil sketch" else colour

    def edge(self, fill: Rgb) -> tuple[Rgb, int]:
        if self.style == "ink drawing":
            return _BLACK, self.width(1.5)
        if self.style == "pencil sketch":
            return (95, 92, 98), self.width(0.8)
        return shade(fill, 0.62), self.width(0.7)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Rgb, *, outline: bool = True) -> None:
        edge, width = self.edge(fill)
        box = (self.at(x - rx, y - ry), self.at(x + rx, y + ry))
        self.canvas.ellipse(box, fill=self.tint(fill), outline=edge if outline else None, width=width if outline else 0)

    def polygon(self, points: Sequence[tuple[float, float]], fill: Rgb, *, outline: bool = True) -> None:
        placed = [self.at(*point) for point in points]
        self.canvas.polygon(placed, fill=self.tint(fill))
        if outline:
            edge, width = self.edge(fill)
            self.canvas.line([*placed, placed[0]], fill=edge, width=width, joint="curve")

    def line(self, points: Sequence[tuple[float, float]], colour: Rgb, units: float) -> None:
        self.canvas.line([self.at(*point) for point in points], fill=colour, width=self.width(units), joint="curve")

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, colour: Rgb, units: float
    ) -> None:
        box = (self.at(x - rx, y - ry), self.at(x + rx, y + ry))
        self.canvas.arc(box, start, end, fill=colour, width=self.width(units))


def draw(portrait: Portrait, pose: Pose | None = None, size: int = 64) -> Image.Image:
    """The portrait as an RGB picture of `size` x `size` pixels."""
    pose = pose or Pose()
    side = size * _OVERSAMPLING
    picture = Image.new("RGB", (side, side))
    pen = _Pen(ImageDraw.Draw(picture), side / 64, pose, portrait.style)
    picture.paste(pen.tint(BACKGROUND[portrait.background]), (0, 0, side, side))
    hair = HAIR[portrait.hair_colour]
    skin = SKIN[portrait.skin]
    _hair_behind(pen, portrait.hair_style, hair)
    _body(pen, portrait, skin)
    if portrait.ears == "bunny":
        _animal_ears(pen, portrait, hair)
    _head(pen, portrait, skin)
    _face(pen, portrait)
    _hair_in_front(pen, portrait.hair_style, hair)
    if portrait.ears in ("cat", "bear"):
        _animal_ears(pen, portrait, hair)
    _accessory(pen, portrait)
    if portrait.style == "pixel art":
        return picture.resize((size // 2, size // 2), Image.Resampling.BOX).resize(
            (size, size), Image.Resampling.NEAREST
        )
    return picture.resize((size, size), Image.Resampling.BOX)


def _hair_behind(pen: _Pen, style: str, hair: Rgb) -> None:
    if style == "long":
        pen.polygon([(14, 30), (11, 62), (53, 62), (50, 30), (44, 18), (20, 18)], hair)
    elif style == "twintails":
        for side in (-1, 1):
            pen.polygon(
                [(32 + side * x, y) for x, y in ((15, 22), (24, 24), (29, 36), (27, 56), (22, 59), (19, 44), (15, 30))],
                hair,
            )
    elif style == "bun":
        pen.ellipse(32, 13, 9, 8, hair)
    elif style == "curly":
        for x, y in ((15, 40), (13, 32), (15, 24), (21, 18), (49, 40), (51, 32), (49, 24), (43, 18), (32, 15)):
            pen.ellipse(x, y, 7, 7, hair)
    elif style == "mohawk":
        pen.polygon([(26, 22), (23, 12), (27, 14), (27, 6), (32, 11), (37, 6), (37, 14), (41, 12), (38, 22)], hair)


def _body(pen: _Pen, portrait: Portrait, skin: Rgb) -> None:
    shirt = CLOTH[portrait.shirt_colour]
    width = {"man": 25, "woman": 21, "boy": 20, "girl": 18.5}[portrait.person]
    pen.polygon([(32 - 4.5, 44), (32 + 4.5, 44), (32 + 4.5, 56), (32 - 4.5, 56)], skin)
    top = 52.0
    outline = [(32 - width, 72), (32 - width + 2, 57), (32 - width + 7, top + 1), (26, top), (32, 56)]
    outline += [(64 - x, y) for x, y in reversed(outline[:-1])]
    pen.polygon(outline, shirt)
    contrast = shade(shirt, 0.45) if sum(shirt) > 560 else mix(shirt, (255, 255, 255), 0.78)
    if portrait.pattern == "striped":
        for y in (58.2, 62.6, 67.0):
            inner = width - (1.6 if y > 58.5 else 2.4)
            pen.polygon(
                [(32 - inner, y), (32 + inner, y), (32 + inner, y + 2), (32 - inner, y + 2)], contrast, outline=False
            )
    elif portrait.pattern == "dotted":
        for x, y in (
            (19, 57),
            (45, 57),
            (25.5, 58.5),
            (38.5, 58.5),
            (32, 61),
            (15.5, 62),
            (22, 62.5),
            (42, 62.5),
            (48.5, 62),
        ):
            if abs(x - 32) < width - 2.5:
                pen.ellipse(x, y, 1.6, 1.6, contrast, outline=False)


def _head(pen: _Pen, portrait: Portrait, skin: Rgb) -> None:
    if portrait.hair_style in ("bald", "mohawk"):
        for x in (17.5, 46.5):
            pen.ellipse(x, 35, 3, 4, skin)
    pen.ellipse(32, 33, 14.5, 15.5, skin)
    if portrait.person == "man":
        edge, width = pen.edge(skin)
        jaw = [(18.6, 37), (20.5, 45.5), (26, 49.5), (38, 49.5), (43.5, 45.5), (45.4, 37)]
        pen.polygon(jaw, skin, outline=False)
        pen.canvas.line([pen.at(*point) for point in jaw], fill=edge, width=width, joint="curve")


def _face(pen: _Pen, portrait: Portrait) -> None:
    iris = EYE[portrait.eye_colour]
    young = portrait.person in ("girl", "boy")
    lashes = portrait.person in ("girl", "woman")
    rx, ry = (4.6, 5.0) if young else (4.4, 4.2)
    for side in (-1, 1):
        x, y = 32 + side * 6.6, 35.0
        pen.ellipse(x, y, rx, ry, (252, 252, 252), outline=False)
        pen.ellipse(x, y + 0.3, 3.7, ry - 0.4, iris, outline=False)
        pen.ellipse(x, y + 0.4, 1.4, 1.7, _BLACK, outline=False)
        pen.arc(x, y, rx, ry, 180, 360, _BLACK, 1.5 if lashes else 0.9)
        if lashes:
            pen.line([(x + side * (rx - 0.6), y - 2.0), (x + side * (rx + 1.6), y - 3.6)], _BLACK, 1.1)
        _brow(pen, portrait, x, side)
    if portrait.person == "girl":
        for x in (21.5, 42.5):
            pen.ellipse(x, 41.6, 2.2, 1.2, mix(SKIN[portrait.skin], (250, 90, 100), 0.5), outline=False)
    _mouth(pen, portrait)


def _brow(pen: _Pen, portrait: Portrait, x: float, side: int) -> None:
    thick = {"man": 1.9, "boy": 1.5, "woman": 0.9, "girl": 0.9}[portrait.person]
    colour = mix(HAIR[portrait.hair_colour], _BLACK, 0.65)
    outer, inner = {"sad": (28.9, 26.9), "surprised": (26.4, 26.0)}.get(portrait.expression, (28.3, 28.3))
    pen.line([(x + side * 3.6, outer), (x - side * 3.2, inner)], colour, thick)


def _mouth(pen: _Pen, portrait: Portrait) -> None:
    colour = _LIPS if portrait.person == "woman" else (105, 35, 40)
    if portrait.expression == "smiling":
        pen.canvas.pieslice((pen.at(26.5, 38.6), pen.at(37.5, 46.8)), 0, 180, fill=pen.tint(colour))
    elif portrait.expression == "sad":
        pen.arc(32, 46.4, 5, 3.2, 180, 360, colour, 1.4)
    elif portrait.expression == "surprised":
        pen.ellipse(32, 44, 2.9, 3.2, colour, outline=False)
    else:
        pen.line([(27.6, 43.6), (36.4, 43.6)], colour, 1.4)


def _hair_in_front(pen: _Pen, style: str, hair: Rgb) -> None:
    if style in ("bald", "mohawk"):
        if style == "mohawk":
            pen.polygon([(27, 26), (26.2, 19), (37.8, 19), (37, 26), (32, 28)], hair, outline=False)
        return
    if style == "curly":
        for x, y in ((19, 24), (24.5, 20.5), (31.5, 20), (38.5, 20.5), (45, 24)):
            pen.ellipse(x, y, 5, 5, hair, outline=False)
        return
    side = {"short": 37.0, "long": 46.0, "twintails": 34.0, "bun": 32.0}[style]
    cap = [(16.4, side), (15.2, 29), (18.2, 20.5), (24.5, 16), (32, 14.8)]
    fringe = [(19.4, side - 1), (21, 28.4), (25, 25.6), (28, 27.8), (32, 25.2)]
    outline = cap + [(64 - x, y) for x, y in reversed(cap[:-1])]
    outline += [(64 - x, y) for x, y in fringe[:-1]] + list(reversed(fringe))
    pen.polygon(outline, hair)


def _animal_ears(pen: _Pen, portrait: Portrait, hair: Rgb) -> None:
    for side in (-1, 1):
        if portrait.ears == "cat":
            pen.polygon([(32 + side * x, y) for x, y in ((5, 18), (14.5, 5), (15.5, 24))], hair)
            pen.polygon(
                [(32 + side * x, y) for x, y in ((9, 17.3), (13.3, 10), (13.6, 19.5))], _INNER_EAR, outline=False
            )
        elif portrait.ears == "bunny":
            pen.ellipse(32 + side * 8.5, 10.5, 4.6, 11.5, hair)
            pen.ellipse(32 + side * 8.5, 9.5, 2.3, 8.0, _INNER_EAR, outline=False)
        else:
            pen.ellipse(32 + side * 12.5, 17, 6.4, 6.4, hair)
            pen.ellipse(32 + side * 12.5, 17, 3.4, 3.4, _INNER_EAR, outline=False)


def _accessory(pen: _Pen, portrait: Portrait) -> None:
    colour = CLOTH[portrait.accessory_colour]
    if portrait.accessory == "glasses":
        for side in (-1, 1):
            x = 32 + side * 6.6
            pen.arc(x, 35, 6.3, 6.3, 0, 360, shade(colour, 0.9), 1.7)
            pen.line([(x + side * 6.0, 34), (x + side * 8.4, 33)], colour, 1.6)
        pen.line([(30.6, 34.4), (33.4, 34.4)], colour, 1.6)
    elif portrait.accessory == "hat":
        pen.polygon([(21, 22), (22.5, 9), (41.5, 9), (43, 22)], colour)
        pen.polygon([(13.5, 24), (14.5, 20), (49.5, 20), (50.5, 24)], colour)
    elif portrait.accessory == "bow":
        for side in (-1, 1):
            pen.polygon([(42 + side * x, y) for x, y in ((0, 20.5), (7.2, 15.8), (7.2, 25.4))], colour)
        pen.ellipse(42, 20.6, 2.2, 2.2, colour)
    elif portrait.accessory == "crown":
        pen.polygon([(22, 22), (20.5, 9.5), (26.5, 15), (32, 8), (37.5, 15), (43.5, 9.5), (42, 22)], colour)
