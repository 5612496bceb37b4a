"""Labelled cartoon portraits: what the starter model learned from, and pictures of its sample characters.

Called by `build.py`, the tests and people: `python -m engine.models.starter.portraits OUT --count N --seed S
[--character C]` writes N pictures with their captions. No torch. The same arguments give the same files.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from engine.models.starter.attributes import (
    Portrait,
    Pose,
    character,
    held_out,
    random_portrait,
    random_pose,
    vary,
)
from engine.models.starter.captions import caption, description, varying_caption
from engine.models.starter.drawing import draw

__all__ = [
    "Portrait",
    "Pose",
    "caption",
    "character",
    "description",
    "draw",
    "held_out",
    "random_portrait",
    "random_pose",
    "varying_caption",
    "write_pictures",
]


def write_pictures(
    folder: Path, count: int, seed: int, character_seed: int | None = None, size: int = 64
) -> list[Path]:
    """Draw `count` pictures `0000.png`, ... with a `.txt` caption each into `folder`; return the pictures' paths.

    With `character_seed` all show that character on differing backgrounds, with differing expressions and poses, and a
    caption names only these; else every picture is a new portrait with a full caption.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"pictures {seed} {character_seed}")
    paths = []
    for index in range(count):
        if character_seed is None:
            portrait = random_portrait(rng)
            text = caption(portrait, rng)
        else:
            portrait = vary(character(character_seed), rng)
            text = varying_caption(portrait)
        path = folder / f"{index:04d}.png"
        draw(portrait, random_pose(rng), size).save(path)
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m engine.models.starter.portraits", description=__doc__.split("\n")[0]
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into; made when missing")
    parser.add_argument("--count", type=int, default=12, metavar="N", help="how many pictures (default: 12)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of everything random (default: 0)")
    parser.add_argument("--character", type=int, metavar="C", help="show this one character, drawn by the seed C")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS", help="side of a picture (default: 64)")
    given = parser.parse_args(arguments)
    if given.count < 1 or given.size < 16:
        parser.error("--count must be at least 1 and --size at least 16")
    paths = write_pictures(given.out, given.count, given.seed, given.character, given.size)
    print(f"{len(paths)} pictures with captions in {given.out}")


if __name__ == "__main__":
    main()
