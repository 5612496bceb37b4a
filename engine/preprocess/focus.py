"""Where a picture's focal point lies: faces, the richest region, corners and edges, each with its weight.

Called where pictures are cut, in a process of its own. Methods: webui.md section 8. Points are pixels (x, y) of the
picture already scaled to fill the crop. cv2 is imported only when faces or edges are looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.preprocess.request import FocalCrop

Point = tuple[int, int]
Detector = Literal["edges", "entropy", "faces"]

_MAX_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE = 100, 0.04, 0.06
_FOOT, _FOOT_GREY = 0.9, 0x99
"""Where captions and watermarks lie: from here down a picture is painted over when edges are looked for."""

_WINDOW_STEP = 4
_CASCADES = (
    ("haarcascade_eye", 0.01),
    ("haarcascade_frontalface_default", 0.05),
    ("haarcascade_profileface", 0.05),
    ("haarcascade_frontalface_alt", 0.05),
    ("haarcascade_frontalface_alt2", 0.05),
    ("haarcascade_frontalface_alt_tree", 0.05),
    ("haarcascade_eye_tree_eyeglasses", 0.05),
    ("haarcascade_upperbody", 0.05),
)
"""In the order in which they are tried, each with the least size of a find as part of the short side."""

_SCALE_FACTOR, _MIN_NEIGHBOURS = 1.1, 7
_MIN_FIND = 5
_COLOURS: dict[Detector, str] = {"edges": "blue", "entropy": "yellow", "faces": "red"}


@dataclass(frozen=True)
class Finding:
    """What one detector found."""

    detector: Detector
    points: tuple[Point, ...]
    weight: float
    """Its part in the focal point; those of all findings make 1."""

    @property
    def centroid(self) -> tuple[float, float]:
        count = len(self.points)
        return sum(x for x, _ in self.points) / count, sum(y for _, y in self.points) / count


def find_points(image: Image.Image, crop: tuple[int, int], options: FocalCrop) -> list[Finding]:
    """Ask every detector that has a weight; those that find nothing drop out, and their weight with them.

    Args:
        image: mode RGB, at least as large as `crop`.
        crop: width and height of the crop to be.
    """
    wanted: list[tuple[Detector, float]] = [
        ("edges", options.edges_weight),
        ("entropy", options.entropy_weight),
        ("faces", options.face_weight),
    ]
    found = []
    for detector, weight in wanted:
        points = _detect(detector, image, crop) if weight > 0 else ()
        if points:
            found.append((detector, points, weight))
    total = sum(weight for _, _, weight in found)
    return [Finding(detector, points, weight / total) for detector, points, weight in found]


def place_crop(size: tuple[int, int], crop: tuple[int, int], findings: list[Finding]) -> Point:
    """Left and top of the crop around the focal point, pushed inside the picture; the middle when nothing was found."""
    focus = size[0] / 2, size[1] / 2
    if findings:
        x = sum(finding.weight * finding.centroid[0] for finding in findings)
        y = sum(finding.weight * finding.centroid[1] for finding in findings)
        focus = round(x), round(y)
    left, top = (int(centre) - side // 2 for centre, side in zip(focus, crop, strict=True))
    return min(max(left, 0), size[0] - crop[0]), min(max(top, 0), size[1] - crop[1])


def find_edges(image: Image.Image) -> tuple[Point, ...]:
    """Up to 100 strong corners, spread over the picture, its lowest tenth left out."""
    import cv2

    grey = image.convert("L")
    grey.paste(_FOOT_GREY, (0, int(grey.height * _FOOT), grey.width, grey.height))
    corners = cv2.goodFeaturesToTrack(
        np.asarray(grey),
        maxCorners=_MAX_CORNERS,
        qualityLevel=_CORNER_QUALITY,
        minDistance=min(grey.size) * _CORNER_DISTANCE,
        useHarrisDetector=False,
    )
    return () if corners is None else tuple((int(x), int(y)) for x, y in corners.reshape(-1, 2))


def find_richest(image: Image.Image, crop: tuple[int, int]) -> tuple[Point, ...]:
    """Centre of the crop whose grey values have the greatest entropy, among crops 4 pixels apart along the slack.

    The reference's score adds up surprise without weighing it by how often it comes, and so prefers a blank region with
    a few dots to one full of detail; this is Shannon's entropy of 256 shades.
    """
    across = image.width > crop[0]
    grey = np.asarray(image.convert("L"))
    lines = grey.T if across else grey
    window = crop[0] if across else crop[1]
    breadth = crop[1] if across else crop[0]
    starts = np.arange(0, len(lines) - window + 1, _WINDOW_STEP)
    if len(starts) < 2:
        return ()
    scores = [entropy(counts) for counts in _window_histograms(lines[:, :breadth], starts, window)]
    if max(scores) <= 0:
        return ()
    best = int(starts[int(np.argmax(scores))]) + window // 2
    return ((best, crop[1] // 2),) if across else ((crop[0] // 2, best),)


def entropy(counts: NDArray[np.int64]) -> float:
    """Shannon's entropy in bits of values that occur so many times each: 0 when all are equal, 1 for two halves."""
    present = counts[counts > 0] / counts.sum()
    return float(-(present * np.log2(present)).sum())


def find_faces(image: Image.Image) -> tuple[Point, ...]:
    """Middles of the faces (or eyes, or heads and shoulders) that the first successful cascade finds."""
    import cv2

    grey = np.asarray(image.convert("L"))
    short = min(image.size)
    for name, least in _CASCADES:
        side = max(int(short * least), _MIN_FIND)
        found = _cascade(name).detectMultiScale(
            grey,
            scaleFactor=_SCALE_FACTOR,
            minNeighbors=_MIN_NEIGHBOURS,
            minSize=(side, side),
            flags=cv2.CASCADE_SCALE_IMAGE,
        )
        if len(found):
            return tuple((int(x + width // 2), int(y + height // 2)) for x, y, width, height in found)
    return ()


def draw_debug(image: Image.Image, corner: Point, crop: tuple[int, int], findings: list[Finding]) -> Image.Image:
    """A copy that shows the crop in green and what was found: edges blue, entropy yellow, faces red, with weights."""
    copy = image.convert("RGB").copy()
    pen = ImageDraw.Draw(copy)
    radius = max(2, min(image.size) // 100)
    for number, finding in enumerate(findings):
        colour = _COLOURS[finding.detector]
        for x, y in finding.points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour)
        x, y = (int(value) for value in finding.centroid)
        pen.ellipse((x - 3 * radius, y - 3 * radius, x + 3 * radius, y + 3 * radius), outline=colour, width=2)
        pen.text((4, 4 + 12 * number), f"{finding.detector} {finding.weight:.2f}", fill=colour)
    left, top = corner
    pen.rectangle((left, top, left + crop[0] - 1, top + crop[1] - 1), outline="green", width=2)
    return copy


def _detect(detector: Detector, image: Image.Image, crop: tuple[int, int]) -> tuple[Point, ...]:
    if detector == "edges":
        return find_edges(image)
    return find_richest(image, crop) if detector == "entropy" else find_faces(image)


def _window_histograms(lines: NDArray[np.uint8], starts: NDArray[np.int64], window: int) -> list[NDArray[np.int64]]:
    """Counts [256] of the grey values in `window` lines from each start on; only what enters and leaves is counted."""
    counts = np.bincount(lines[:window].reshape(-1), minlength=256)
    found = [counts]
    for start in starts[1:]:
        entering = np.bincount(lines[start - _WINDOW_STEP + window : start + window].reshape(-1), minlength=256)
        leaving = np.bincount(lines[start - _WINDOW_STEP : start].reshape(-1), minlength=256)
        counts = counts + entering - leaving
        found.append(counts)
    return found


def _cascade(name: str) -> Any:
    import cv2
    import cv2.data

    if name not in _LOADED:
        _LOADED[name] = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / f"{name}.xml"))
    return _LOADED[name]


_LOADED: dict[str, Any] = {}
"""Cascades, which take a tenth of a second each to read."""
