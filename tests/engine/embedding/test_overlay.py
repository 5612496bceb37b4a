"""Captions on pictures that carry a word: readable where there is room, and never in the way of the word."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.embedding.overlay import draw_overlay, encode_carrier
from engine.embedding.read import read_embedding
from engine.embedding.vectors import Embedding

GREY = 200
CAPTION = {"title": "mia-500", "model": "v1-5-pruned", "model_hash": "0a1b2c3d4e", "vectors": 8, "step": 500}


def plain(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (GREY, GREY, GREY))


def draw(width: int, height: int, **caption: Any) -> NDArray[np.int16]:
    image = draw_overlay(plain(width, height), **{**CAPTION, **caption})
    assert (image.mode, image.size) == ("RGB", (width, height))
    return np.asarray(image)[..., 0].astype(np.int16)


def drawn_columns(pixels: NDArray[np.int16], rows: slice) -> list[tuple[int, int]]:
    """First and last column of each text between rows: what is brighter than its row, grouped at wide gaps."""
    band = pixels[rows]
    lit = np.flatnonzero((band > np.median(band, axis=1, keepdims=True) + 40).any(axis=0))
    groups = np.split(lit, np.flatnonzero(np.diff(lit) > 20) + 1)
    return [(int(group[0]), int(group[-1])) for group in groups if len(group)]


def test_the_picture_is_darkened_towards_both_edges_as_in_webui() -> None:
    pixels = draw(512, 512)[:, 511]
    for y in (0, 60, 256, 300, 500):
        shade = min(1, max(1 - np.cos(1.5 * y / 512), 1 - np.cos(1.65 * (512 - y) / 512)))
        assert abs(pixels[y] - GREY * (1 - shade)) <= 2


@pytest.mark.parametrize("width", [512, 768, 1024])
def test_title_and_three_footers_stand_where_webui_has_them(width: int) -> None:
    pixels = draw(width, 512)
    ((left, right),) = drawn_columns(pixels, slice(0, 90))
    assert 10 <= left <= 18  # the sign `<` has air before it
    assert right <= 0.75 * width - 40 + 10
    model, fingerprint, counts = drawn_columns(pixels, slice(450, 512))
    assert 10 <= model[0] <= 14
    assert abs(sum(fingerprint) / 2 - width / 2) <= 4
    assert width - 14 <= counts[1] <= width - 10
    assert all(end - start <= width / 3 - 10 for start, end in (model, fingerprint, counts))


def test_a_long_title_is_made_smaller_and_a_short_one_no_larger_than_72_pixels() -> None:
    heights = []
    for title in ("m", "mia-500", "a word with a very long name-123456"):
        lit = np.flatnonzero((draw(512, 512, title=title)[:100] > 200).any(axis=1))
        heights.append(lit[-1] - lit[0])
    assert 72 >= heights[0] > heights[2] > 8


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (128, 128), (200, 100)])
def test_a_small_picture_shows_title_and_counts_within_its_edges(width: int, height: int) -> None:
    pixels = draw(width, height, model="")
    (title,) = drawn_columns(pixels, slice(0, height // 3))
    (counts,) = drawn_columns(pixels, slice(2 * height // 3, height))
    assert title[0] < counts[0] < counts[1] < width
    assert title[1] < width
    middle = pixels[height // 3 + 2 : 2 * height // 3 - 2]
    assert (middle.max(axis=1) == middle.min(axis=1)).all()


@pytest.mark.parametrize(("width", "height"), [(40, 200), (200, 20), (1, 1)])
def test_a_picture_with_no_room_stays_as_it_is(width: int, height: int) -> None:
    assert (draw(width, height) == GREY).all()


@pytest.mark.parametrize(
    "title", ["漢字-5", "привет", "عربى", "müller", "👩‍👩‍👧", "a\nb\x1b[31m\u202e", "x" * 500, "", "\ud83d"]
)
@pytest.mark.parametrize("width", [64, 512])
def test_any_text_is_drawn_in_one_line(title: str, width: int) -> None:
    pixels = draw(width, width, title=title, model=title, model_hash=title)
    assert (pixels[: width // 4] > 100).any()


def test_nothing_is_written_for_an_unknown_model() -> None:
    assert len(drawn_columns(draw(512, 512, model="", model_hash=""), slice(450, 512))) == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_carrier_is_made_of_a_picture_of_any_mode_and_says_nothing_else(mode: str) -> None:
    vectors = np.random.default_rng(1).normal(size=(4, 768)).astype(np.float32)
    data = encode_carrier(Embedding("mia-500", vectors, step=500), plain(96, 64).convert(mode))
    image = Image.open(io.BytesIO(data))
    assert list(image.info) == ["sd-ti-embedding"]
    assert (image.mode, image.height) == ("RGB", 64)
    assert read_embedding(data, "mia-500").vectors.tobytes() == vectors.tobytes()
