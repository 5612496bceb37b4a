"""Draws the training pictures once and keeps them in the build's work folder. Used by `build.py`; no torch.

Picture number i depends on the seed and i alone, so any process may draw it.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.models.starter.attributes import random_portrait, random_pose
from engine.models.starter.captions import caption
from engine.models.starter.drawing import draw

_CHUNK = 500


@dataclass(frozen=True)
class Pictures:
    """`pixels` (N, 64, 64, 3) uint8, on disk; `captions` N tuples of true captions."""

    pixels: NDArray[np.uint8]
    captions: list[list[str]]


def draw_pictures(first: int, count: int, seed: int, captions_each: int) -> tuple[NDArray[np.uint8], list[list[str]]]:
    """Pictures `first` to `first + count - 1` of a seed: (count, 64, 64, 3) uint8, and their captions."""
    pixels = np.empty((count, 64, 64, 3), np.uint8)
    captions = []
    for offset in range(count):
        rng = random.Random(f"starter {seed} {first + offset}")
        portrait = random_portrait(rng)
        pixels[offset] = np.asarray(draw(portrait, random_pose(rng)))
        captions.append([caption(portrait, rng) for _ in range(captions_each)])
    return pixels, captions


def prepare_pictures(work: Path, count: int, seed: int, captions_each: int) -> Pictures:
    """Draw `count` pictures into `work` unless they are there already; return them mapped from disk."""
    pixels_path, captions_path = work / "pictures.npy", work / "captions.json"
    if not (pixels_path.exists() and captions_path.exists()):
        _draw_all(work, pixels_path, captions_path, count, seed, captions_each)
    pixels = np.load(pixels_path, mmap_mode="r")
    return Pictures(pixels, json.loads(captions_path.read_text(encoding="utf-8")))


def _draw_all(work: Path, pixels_path: Path, captions_path: Path, count: int, seed: int, captions_each: int) -> None:
    unfinished = work / ".pictures.npy"
    pixels = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=(count, 64, 64, 3))
    captions: list[list[str]] = []
    starts = range(0, count, _CHUNK)
    chunk = partial(_draw_chunk, count=count, seed=seed, captions_each=captions_each)
    with multiprocessing.get_context("spawn").Pool() as pool:
        for start, (drawn, texts) in zip(starts, pool.imap(chunk, starts), strict=True):
            pixels[start : start + len(drawn)] = drawn
            captions += texts
    pixels.flush()
    unfinished.replace(pixels_path)
    captions_path.write_text(json.dumps(captions), encoding="utf-8")


def _draw_chunk(start: int, *, count: int, seed: int, captions_each: int) -> tuple[NDArray[np.uint8], list[list[str]]]:
    return draw_pictures(start, min(_CHUNK, count - start), seed, captions_each)
