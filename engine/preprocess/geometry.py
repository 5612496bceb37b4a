"""Where to cut: sizes, boxes and counts from a picture's width and height alone; no pixel is looked at.

Called where pictures are cut and by the dry run, which therefore cannot disagree. Methods: webui.md section 8. A box is
left, top, right, bottom in the source's pixels, fractions allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.errors import VocableError
from engine.preprocess.request import AutoSize, PreprocessOptions, Split
from engine.preprocess.results import Step

Box = tuple[float, float, float, float]

MAX_PIECES = 200
"""Most pieces that one picture is split into; a picture that would make more is a slip or a bomb."""

MAX_SCALED_PIXELS = 64_000_000
"""Largest picture that the search for a focal point is made on."""

_BUCKET_STEP = 64
_ROUNDING = 1e-9
"""What binary fractions may add to a count that is whole."""


@dataclass(frozen=True)
class Cut:
    """One prepared picture to be: `box` of the source brought to `width` x `height`; flips not counted."""

    step: Step
    box: Box | None
    """None where only the pixels can tell: the focal point decides."""
    width: int
    height: int


def outline(width: int, height: int, options: PreprocessOptions) -> list[Cut]:
    """What the steps make of a picture of `width` x `height` pixels, in order; at least one.

    Raises:
        VocableError: `preprocess.proportions` when the picture is too long for a step, `preprocess.size` when auto_size
            is the only step and no size suits.
    """
    size = (options.width, options.height)
    cuts = split(width, height, options.width, options.height, options.split) if options.split.enabled else []
    if options.focal_crop.enabled and _has_slack(width, height, *size):
        scale = fill_scale(width, height, *size)
        if round(width * scale) * round(height * scale) > MAX_SCALED_PIXELS:
            raise _too_long(width, height, "to look for its focal point")
        cuts.append(Cut("focal crop", None, *size))
    if options.auto_size.enabled:
        chosen = choose_size(width, height, options.auto_size)
        if chosen:
            cuts.append(Cut("auto size", centred_box(width, height, *chosen), *chosen))
    if options.keep_size:
        cuts.append(Cut("keep size", (0, 0, width, height), width, height))
    if not cuts and options.auto_size.enabled:
        raise VocableError("preprocess.size", describe_misfit(width, height))
    if not cuts:
        cuts.append(Cut("resize", centred_box(width, height, *size), *size))
    return cuts


def describe_misfit(width: int, height: int) -> str:
    """What is said of a picture for which auto_size finds no size."""
    return f"No size within the bounds of auto_size suits its {width} x {height} pixels."


def warn_of_size(width: int, height: int, enlarged: float, options: PreprocessOptions) -> list[str]:
    """What is told of a picture for its size alone; `enlarged` is the most that one of its cuts enlarges it."""
    found = []
    most = options.checks.enlargement
    if most and enlarged > most:
        found.append(f"It has {width} x {height} pixels and is enlarged {enlarged:.2g} times.")
    if options.auto_size.enabled and choose_size(width, height, options.auto_size) is None:
        found.append(describe_misfit(width, height))
    return found


def split(width: int, height: int, target_width: int, target_height: int, options: Split) -> list[Cut]:
    """Pieces along the long side, each sharing at least `overlap` of itself with the next; none for a picture that is
    not long enough."""
    ratio, _ = split_ratio(width, height, target_width, target_height)
    if not (ratio < 1 and ratio <= options.threshold):
        return []
    upright = height > width
    short, long = (width, height) if upright else (height, width)
    tile_short, tile_long = (target_width, target_height) if upright else (target_height, target_width)
    scaled = long * tile_short // short
    if piece_count(scaled, tile_long, options.overlap) > MAX_PIECES:
        raise _too_long(width, height, f"to be split into at most {MAX_PIECES} pieces")
    back = long / scaled
    spans = [
        (start * back, min((start + tile_long) * back, long)) for start in offsets(scaled, tile_long, options.overlap)
    ]
    boxes: list[Box] = [(0, low, width, high) if upright else (low, 0, high, height) for low, high in spans]
    return [Cut("split", box, target_width, target_height) for box in boxes]


def split_ratio(width: int, height: int, target_width: int, target_height: int) -> tuple[float, bool]:
    """How long a picture is beside the size: below 1 it is longer; and whether it stands upright."""
    upright = height > width
    across, along = target_width * height, target_height * width
    return (along / across if upright else across / along), upright


def piece_count(length: int, tile: int, overlap: float) -> int:
    """Pieces of `tile` pixels that `length` pixels take."""
    exact = (length - tile * overlap) / (tile * (1 - overlap))
    return max(1, math.ceil(exact - _ROUNDING))


def offsets(length: int, tile: int, overlap: float) -> list[int]:
    """Where the pieces begin, in pixels: evenly from the first pixel to the last."""
    count = piece_count(length, tile, overlap)
    if count == 1:
        return [0]
    return [(length - tile) * number // (count - 1) for number in range(count)]


def choose_size(width: int, height: int, options: AutoSize) -> tuple[int, int] | None:
    """The width and height in steps of 64 pixels that suit a picture's proportions best; None when none does."""

    def error(size: tuple[int, int]) -> float:
        ratio = width / height / (size[0] / size[1])
        return 1 - min(ratio, 1 / ratio)

    sides = range(options.min_dim, options.max_dim + 1, _BUCKET_STEP)
    lawful = ((w, h) for w in sides for h in sides if options.min_area <= w * h <= options.max_area)
    fitting = [size for size in lawful if error(size) <= options.threshold]
    if options.objective == "area":
        return max(fitting, key=lambda size: (size[0] * size[1], -error(size)), default=None)
    return max(fitting, key=lambda size: (-error(size), size[0] * size[1]), default=None)


def centred_box(width: int, height: int, target_width: int, target_height: int) -> Box:
    """The largest part of a picture that has the target's proportions, from its middle."""
    scale = fill_scale(width, height, target_width, target_height)
    across, along = min(target_width / scale, width), min(target_height / scale, height)
    left, top = (width - across) / 2, (height - along) / 2
    return (left, top, left + across, top + along)


def fill_scale(width: int, height: int, target_width: int, target_height: int) -> float:
    """How many times a picture is enlarged to fill the target; below 1 it shrinks."""
    return max(target_width / width, target_height / height)


def enlargement(cut: Cut, width: int, height: int) -> float:
    """How many times a cut enlarges its source."""
    if cut.box is None:
        return fill_scale(width, height, cut.width, cut.height)
    left, top, right, bottom = cut.box
    return max(cut.width / (right - left), cut.height / (bottom - top))


def _has_slack(width: int, height: int, target_width: int, target_height: int) -> bool:
    """Whether something is cut off when a picture fills the target, so that it matters what."""
    return width * target_height != height * target_width


def _too_long(width: int, height: int, purpose: str) -> VocableError:
    return VocableError("preprocess.proportions", f"It has {width} x {height} pixels and is too long {purpose}.")
