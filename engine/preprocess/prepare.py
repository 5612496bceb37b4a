"""One source picture in, its prepared pictures out, all in memory; nothing is written here.

Runs in the processes of child.py, because decoders meet foreign bytes.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from engine.dataset.pictures import decode_layers, flatten, measure_picture, read_picture
from engine.preprocess.focus import draw_debug, find_points, place_crop
from engine.preprocess.geometry import Box, Cut, enlargement, fill_scale, outline
from engine.preprocess.likeness import fingerprint, sharpness
from engine.preprocess.request import PreprocessOptions
from engine.preprocess.results import Step

PREPARE_RULE = 1
"""Number of the rules by which bytes become prepared pictures; counts up when a result would change."""

_PNG_LEVEL = 4
"""As small as Pillow's own choice, in four fifths of the time."""


@dataclass(frozen=True)
class Piece:
    """A prepared picture as the PNG file that it will be."""

    step: Step
    width: int
    height: int
    flipped: bool
    data: bytes


@dataclass(frozen=True)
class Facts:
    """What is known of a source picture; kept in the record."""

    sha256: str
    """Of the file's bytes."""
    width: int
    height: int
    """Upright, in pixels."""
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    """`likeness.Fingerprint` as text."""
    sharpness: float = 0.0
    enlargement: float = 0.0
    """How many times the picture is enlarged at most."""


@dataclass(frozen=True)
class Prepared:
    facts: Facts
    pieces: tuple[Piece, ...]
    debug: bytes = b""
    """PNG with the focal crop drawn in; empty when there is none."""


def measure(path: Path) -> Facts:
    """Hash and size of a picture, from its header. Raises VocableError `dataset.picture`."""
    data = read_picture(path)
    width, height = measure_picture(data, path)
    return Facts(hashlib.sha256(data).hexdigest(), width, height)


def prepare(path: Path, options: PreprocessOptions) -> Prepared:
    """Decode a picture and make everything of it that the options ask for.

    Raises:
        VocableError: `dataset.picture`, `preprocess.{proportions,size}`.
    """
    data = read_picture(path)
    layers = decode_layers(data, path)
    layers.image.info.clear()  # place, camera and colour profile of a photo do not go into what is made of it
    flat, transparent = _flat(layers.image, options)
    image = layers.image if options.alpha == "keep" and transparent else flat
    cuts = outline(image.width, image.height, options)
    debug = b""
    pieces = []
    for cut in cuts:
        if cut.box is None:
            made, debug = _cut_at_focus(image, flat, cut, options)
        else:
            made = _scale(image, (cut.width, cut.height), cut.box)
        pieces += _encode(made, cut, options)
    facts = Facts(
        hashlib.sha256(data).hexdigest(),
        image.width,
        image.height,
        _notes(layers.turned, layers.animated, transparent, options),
        fingerprint(flat).to_text(),
        round(sharpness(flat), 1),
        round(max(enlargement(cut, image.width, image.height) for cut in cuts), 3),
    )
    return Prepared(facts, tuple(pieces), debug)


def _flat(image: Image.Image, options: PreprocessOptions) -> tuple[Image.Image, bool]:
    flat = flatten(image, options.background)
    return flat.image, flat.transparent


def _notes(turned: bool, animated: bool, transparent: bool, options: PreprocessOptions) -> tuple[str, ...]:
    notes = []
    if turned:
        notes.append("turned upright")
    if animated:
        notes.append("first frame of several")
    if transparent:
        kept = "transparency kept as a mask"
        notes.append(kept if options.alpha == "keep" else f"transparent parts laid on {options.background}")
    return tuple(notes)


def _scale(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """Bring a part of a picture to a size. Colours under a mask stay as they are: each channel goes by itself."""
    if box is None:
        box = (0, 0, image.width, image.height)
    if image.size == size and box == (0, 0, *size):
        return image
    if image.mode == "RGB":
        return image.resize(size, Image.Resampling.LANCZOS, box)
    channels = [channel.resize(size, Image.Resampling.LANCZOS, box) for channel in image.split()]
    return Image.merge(image.mode, channels)


def _cut_at_focus(
    image: Image.Image, flat: Image.Image, cut: Cut, options: PreprocessOptions
) -> tuple[Image.Image, bytes]:
    crop = (cut.width, cut.height)
    scale = fill_scale(image.width, image.height, *crop)
    size = (max(round(image.width * scale), crop[0]), max(round(image.height * scale), crop[1]))
    scaled = _scale(image, size)
    seen = scaled if image is flat else _scale(flat, size)
    findings = find_points(seen, crop, options.focal_crop)
    left, top = place_crop(size, crop, findings)
    cropped = scaled.crop((left, top, left + crop[0], top + crop[1]))
    debug = _png(draw_debug(seen, (left, top), crop, findings)) if options.focal_crop.debug else b""
    return cropped, debug


def _encode(image: Image.Image, cut: Cut, options: PreprocessOptions) -> list[Piece]:
    pieces = [Piece(cut.step, image.width, image.height, False, _png(image))]
    if options.flip:
        pieces.append(Piece(cut.step, image.width, image.height, True, _png(ImageOps.mirror(image))))
    return pieces


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()
