"""What is trained under the kills, and what a finished run leaves, to be compared with its undisturbed twin."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from daemon.client import Client
from daemon.protocol.runs import LossPoint, RunDetail
from engine.embedding.read import read_embedding
from engine.models.starter.sample import TRAIN_DIR

RECIPES: dict[str, dict[str, Any]] = {
    "measured": {
        "train": {"steps": 60, "batch_size": 2, "seed": 7},
        "save": {"checkpoint_every": 5, "every": 15, "images_every": 20},
        "preview": {"steps": 4, "prompt": "portrait of [name]"},
    },
    "rested": {
        "train": {"steps": 24, "batch_size": 1, "seed": 8},
        "save": {"checkpoint_every": 4, "every": 8, "images_every": 0},
    },
    "dropped": {
        "train": {"steps": 16, "batch_size": 2, "seed": 9},
        "save": {"checkpoint_every": 5, "every": 0, "images_every": 16},
        "preview": {"steps": 2},
    },
    "short": {
        "train": {"steps": 500, "batch_size": 1, "seed": 10},
        "save": {"checkpoint_every": 5, "every": 0, "images_every": 0},
    },
}


def recipe(kind: str, name: str) -> dict[str, Any]:
    start = {"init_text": "girl", "vectors": 2}
    return {"name": name, "start": start, "data": {"folder": str(TRAIN_DIR)}, **RECIPES[kind]}


@dataclass(frozen=True)
class Yield:
    """What a finished run leaves: the same whatever happened on the way."""

    vectors: bytes
    table: str
    losses: tuple[LossPoint, ...]
    copies: dict[str, bytes]
    pictures: dict[str, bytes]
    """Pixels of the previews."""
    carriers: frozenset[str]

    @classmethod
    async def of(cls, client: Client, run: str) -> Yield:
        view, series = await client.run(run), await client.losses(run, points=1000)
        return await asyncio.to_thread(cls._read, view, tuple(series.points))

    @classmethod
    def _read(cls, view: RunDetail, losses: tuple[LossPoint, ...]) -> Yield:
        def files(name: str) -> dict[str, Path]:
            return {path.name.removeprefix(view.name): path for path in Path(view.folder, name).glob("*")}

        assert sorted(view.previews) == sorted(map(str, files("images").values()))
        return cls(
            vectors_in(view.embedding),
            Path(view.folder, "textual_inversion_loss.csv").read_text(),
            losses,
            {name: vectors_in(str(path)) for name, path in files("embeddings").items()},
            {name: Image.open(path).tobytes() for name, path in files("images").items()},
            frozenset(files("image_embeddings")),
        )


def vectors_in(path: str) -> bytes:
    """The vectors of a whole file, bit for bit. Raises VocableError for any other."""
    file = Path(path)
    return read_embedding(file.read_bytes(), file.stem).vectors.tobytes()


def find_differences(left: Yield, twin: Yield) -> list[str]:
    """In what a run differs from its twin. A preview that was cut short by a kill is missing, and nothing else."""
    whole = replace(left, pictures={**twin.pictures, **left.pictures}, carriers=left.carriers | twin.carriers)
    return [field.name for field in fields(Yield) if getattr(whole, field.name) != getattr(twin, field.name)]
