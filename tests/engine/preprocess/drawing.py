"""Pictures that tests draw: a face that the cascades find, and others with known places in them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def draw_face(size: tuple[int, int], centre: tuple[int, int], radius: int) -> Image.Image:
    """A face on plain grey; its eyes lie a tenth of the radius above `centre`."""
    image = Image.new("RGB", size, (120, 120, 120))
    pen = ImageDraw.Draw(image)

    def ellipse(x: float, y: float, width: float, height: float, colour: tuple[int, int, int]) -> None:
        left, top = centre[0] + (x - width) * radius, centre[1] + (y - height) * radius
        pen.ellipse((left, top, left + 2 * width * radius, top + 2 * height * radius), fill=colour)

    ellipse(0, -0.25, 1.0, 1.15, (50, 35, 25))
    ellipse(0, 0, 0.8, 1.05, (225, 190, 165))
    ellipse(0, -0.75, 0.7, 0.3, (50, 35, 25))
    for side in (-1, 1):
        ellipse(side * 0.35, -0.12, 0.26, 0.16, (170, 130, 110))
        ellipse(side * 0.35, -0.34, 0.24, 0.06, (70, 45, 35))
        ellipse(side * 0.35, -0.1, 0.18, 0.09, (245, 245, 245))
        ellipse(side * 0.35, -0.1, 0.09, 0.09, (30, 20, 20))
        ellipse(side * 0.6, 0.25, 0.15, 0.3, (205, 165, 145))
    ellipse(0, 0.15, 0.09, 0.3, (240, 205, 180))
    ellipse(0, 0.36, 0.16, 0.06, (170, 120, 105))
    ellipse(0, 0.62, 0.3, 0.08, (150, 60, 60))
    return image.filter(ImageFilter.GaussianBlur(2))


def draw_noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Blots of many colours; no two seeds look alike."""
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)  # type: ignore[arg-type]
    return data.getvalue()


def write(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path
