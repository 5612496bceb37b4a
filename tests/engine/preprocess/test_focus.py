from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.preprocess.focus import (
    Finding,
    draw_debug,
    entropy,
    find_edges,
    find_faces,
    find_points,
    find_richest,
    place_crop,
)
from engine.preprocess.request import FocalCrop
from tests.engine.preprocess.drawing import draw_face, draw_noise


def grainy(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Plain but for grain of all shades in `box`."""
    image = Image.new("RGB", size, "white")
    image.paste(Image.effect_noise((box[2] - box[0], box[3] - box[1]), 80).convert("RGB"), box)
    return image


@pytest.mark.parametrize("centre", [(120, 200), (640, 180)])
def test_a_face_is_found_where_it_was_drawn(centre: tuple[int, int]) -> None:
    points = find_faces(draw_face((800, 400), centre, 90))
    assert points
    x, y = np.mean(points, axis=0)
    assert abs(x - centre[0]) < 25
    assert -45 < y - centre[1] < 20  # the eyes, or the middle of the face


def test_no_face_is_found_on_a_plain_wall() -> None:
    assert find_faces(Image.new("RGB", (400, 400), "grey")) == ()


def test_corners_are_found_where_they_were_drawn() -> None:
    image = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(image).rectangle((300, 40, 360, 100), fill="black")
    corners = sorted(find_edges(image))
    assert len(corners) == 4
    assert np.abs(np.array(corners) - [(300, 40), (300, 100), (360, 40), (360, 100)]).max() <= 2


def test_edges_in_the_lowest_tenth_are_not_looked_at() -> None:
    image = Image.new("RGB", (400, 200), "#999999")
    ImageDraw.Draw(image).rectangle((40, 185, 80, 199), fill="black")
    assert find_edges(image) == ()


def test_entropy_is_shannons() -> None:
    assert entropy(np.array([50, 50])) == pytest.approx(1.0)
    assert entropy(np.array([99, 1])) == pytest.approx(0.0808, abs=1e-4)
    assert entropy(np.array([100, 0])) == 0


@pytest.mark.parametrize(
    ("size", "box", "crop", "point"),
    [
        ((600, 200), (400, 0, 600, 200), (200, 200), (500, 100)),
        ((600, 200), (0, 0, 200, 200), (200, 200), (100, 100)),
        ((200, 600), (0, 240, 200, 440), (200, 200), (100, 340)),
    ],
)
def test_the_richest_window_is_the_one_that_holds_the_detail(
    size: tuple[int, int], box: tuple[int, int, int, int], crop: tuple[int, int], point: tuple[int, int]
) -> None:
    (found,) = find_richest(grainy(size, box), crop)
    assert np.abs(np.subtract(found, point)).max() <= 4


def test_a_few_dots_are_not_richer_than_a_region_full_of_detail() -> None:
    image = grainy((600, 200), (400, 0, 600, 200))
    for x in range(20, 180, 40):
        image.putpixel((x, 100), (0, 0, 0))
    assert find_richest(image, (200, 200))[0][0] > 450


def test_a_plain_picture_and_one_without_slack_have_no_richest_window() -> None:
    assert find_richest(Image.new("RGB", (600, 200), "red"), (200, 200)) == ()
    assert find_richest(draw_noise((200, 200)), (200, 200)) == ()


def test_detectors_that_find_nothing_leave_their_weight_to_the_others() -> None:
    image = grainy((600, 200), (400, 0, 600, 200))
    findings = find_points(image, (200, 200), FocalCrop(face_weight=0.9, entropy_weight=0.15, edges_weight=0.45))
    weights = {finding.detector: finding.weight for finding in findings}
    assert weights == {"edges": pytest.approx(0.75), "entropy": pytest.approx(0.25)}


def test_a_detector_without_weight_is_not_asked() -> None:
    findings = find_points(draw_face((800, 400), (200, 200), 90), (400, 400), FocalCrop(face_weight=0))
    assert [finding.detector for finding in findings] == ["edges", "entropy"]


@pytest.mark.parametrize(
    ("points", "corner"), [(((300, 100),), (200, 0)), (((10, 100),), (0, 0)), (((590, 100),), (400, 0)), ((), (200, 0))]
)
def test_the_crop_lies_around_the_focal_point_and_inside(
    points: tuple[tuple[int, int], ...], corner: tuple[int, int]
) -> None:
    findings = [Finding("edges", points, 1.0)] if points else []
    assert place_crop((600, 200), (200, 200), findings) == corner


def test_the_focal_point_is_the_weighted_middle() -> None:
    findings = [Finding("edges", ((100, 100), (200, 100)), 0.25), Finding("faces", ((450, 100),), 0.75)]
    assert place_crop((600, 200), (200, 200), findings) == (275, 0)


def test_the_debug_picture_shows_the_crop_in_green_and_finds_in_their_colours() -> None:
    drawn = draw_debug(Image.new("RGB", (600, 200)), (200, 0), (200, 200), [Finding("faces", ((300, 100),), 1.0)])
    assert drawn.getpixel((200, 50)) == (0, 128, 0)
    assert drawn.getpixel((302, 100)) == (255, 0, 0)
