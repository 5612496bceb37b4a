"""The files of a run's folder besides its checkpoints, and the word or hypernetwork itself in its own folder.

Called by the training loop. `log.txt` has one line a record; the table of losses and `settings.json` use the web UI's
names, so that tools made for those read them. Nothing is replaced that is not kept elsewhere first.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from engine.events import Event, PhaseChanged, Progress, event_to_dict
from engine.files import append, sync, write_atomically, write_error
from engine.recipe import Kind, Recipe, format_recipe
from engine.text import escape
from engine.training.job import TrainingJob
from engine.training.product import Product, encode_product, save_product
from engine.training.report import Reading

LOSS_TABLE = "textual_inversion_loss.csv"
LOSS_TABLES: Final[dict[Kind, str]] = {"embedding": LOSS_TABLE, "hypernetwork": "hypernetwork_loss.csv"}
"""The table of losses by what is trained."""

_COLUMNS = ("step", "epoch", "epoch_step", "loss", "learn_rate")


class RunLog:
    """`log.txt`: what happened and when, in UTC; foreign text is escaped."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._path = folder / "log.txt"
        self._clock = clock
        self._phase = ""

    def write_event(self, event: Event) -> None:
        """Log what is news: no losses, and of a phase only its beginning."""
        if isinstance(event, Progress) or (isinstance(event, PhaseChanged) and event.phase == self._phase):
            return
        if isinstance(event, PhaseChanged):
            self._phase = event.phase
        fields = event_to_dict(event)
        self.write(fields.pop("event"), fields)

    def write(self, kind: str, fields: dict[str, Any]) -> None:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        words = [f"{key}={escape(json.dumps(value, ensure_ascii=False))}" for key, value in fields.items()]
        line = " ".join([moment, kind, *words]) + "\n"
        append(self._path, line.encode("utf-8", errors="backslashreplace"))


class LossTable:
    """The table of losses as CSV; after a resume no step stands in it twice.

    Args:
        every: steps between rows; 0 for no table.
        epoch_of: epoch and place in the epoch of an update's number (from 0).
    """

    def __init__(
        self, folder: Path, *, every: int, epoch_of: Callable[[int], tuple[int, int]], name: str = LOSS_TABLE
    ) -> None:
        self._path = folder / name
        self._every = every
        self._epoch_of = epoch_of

    def cut(self, step: int) -> None:
        """Drop the rows beyond `step`, and a last row that was not written whole."""
        rows = self._read_rows()
        if rows is not None:
            kept = [row for row in rows if _step_of(row) <= step]
            write_atomically(self._path, "".join([_row(_COLUMNS), *kept]).encode("ascii"))

    def find_last_step(self) -> int:
        """The step of the newest row; 0 when there is none."""
        steps = [step for row in self._read_rows() or () if math.isfinite(step := _step_of(row))]
        return int(max(steps, default=0))

    def _read_rows(self) -> list[str] | None:
        """The rows that were written whole; None without a table."""
        try:
            lines = self._path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise write_error(self._path, error) from error
        return [line for line in lines[1:] if line.endswith("\n") and line.isascii()]

    def add(self, readings: Iterable[Reading]) -> None:
        rows = []
        for reading in readings:
            if self._every and reading.step % self._every == 0:
                loss = "nan" if reading.loss is None else f"{reading.loss:.7f}"
                rows.append(_row((reading.step, *self._epoch_of(reading.step - 1), loss, reading.learn_rate)))
        if rows:
            header = "" if self._path.exists() else _row(_COLUMNS)
            append(self._path, (header + "".join(rows)).encode("ascii"))

    def sync(self) -> None:
        """Have the rows so far survive a power cut."""
        sync(self._path)


def copy_path(job: TrainingJob, step: int) -> Path:
    return job.folder / f"{job.recipe.kind}s" / f"{job.recipe.name}-{step}.safetensors"


def preview_path(job: TrainingJob, step: int, number: int) -> Path:
    """Where preview `number` (from 0) of `step` belongs."""
    suffix = f"-{number + 1}" if number else ""
    return job.folder / "images" / f"{job.recipe.name}-{step}{suffix}.png"


def carrier_path(job: TrainingJob, step: int) -> Path:
    """Where the picture belongs that is the word as it was at `step`."""
    return job.folder / "image_embeddings" / f"{job.recipe.name}-{step}.png"


def write_settings(job: TrainingJob, *, pictures: int, initial_step: int, clock: Callable[[], float]) -> None:
    """Write `recipe.toml` and `settings.json`, the latter with the web UI's names as far as it has such fields."""
    recipe = job.recipe
    moment = datetime.fromtimestamp(clock(), UTC)
    settings = {
        "datetime": f"{moment:%Y-%m-%d %H:%M:%S}",
        "model_name": job.resolved.model.name,
        "model_hash": job.resolved.model.hash,
        "num_of_dataset_images": pictures,
        **_product_settings(recipe),
        "learn_rate": recipe.train.learn_rate,
        "batch_size": recipe.train.batch_size,
        "gradient_step": 1,
        "data_root": str(job.resolved.folder),
        "log_directory": str(job.folder),
        "training_width": job.width,
        "training_height": job.height,
        "steps": recipe.train.steps,
        "clip_grad_mode": "disabled",
        "latent_sampling_method": "random",
        "create_image_every": recipe.save.images_every,
        "template_file": str(job.resolved.template),
        "initial_step": initial_step,
        "preview_prompt": recipe.preview.prompt,
        "preview_negative_prompt": recipe.preview.negative_prompt,
        "preview_steps": recipe.preview.steps,
        "preview_sampler_name": recipe.preview.sampler,
        "preview_cfg_scale": recipe.preview.cfg_scale,
        "preview_seed": recipe.preview.seed,
        "preview_width": recipe.preview.width or job.width,
        "preview_height": recipe.preview.height or job.height,
    }
    write_atomically(job.folder / "recipe.toml", format_recipe(recipe).encode("utf-8"))
    write_atomically(job.folder / "settings.json", json.dumps(settings, indent=4).encode())


def _product_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that are of one kind of run."""
    start = recipe.start
    if recipe.kind == "embedding":
        return {
            "num_vectors_per_token": start.vectors,
            "embedding_name": recipe.name,
            "save_embedding_every": recipe.save.every,
            "save_image_with_stored_embedding": recipe.save.embed_in_images,
        }
    return {
        "hypernetwork_name": recipe.name,
        "save_hypernetwork_every": recipe.save.every,
        "layer_structure": list(start.sizes),
        "activation_func": start.activation,
        "weight_init": start.init,
        "add_layer_norm": start.layer_norm,
        "use_dropout": any(start.dropout),
    }


def deliver(job: TrainingJob, product: Product) -> None:
    """Write it to its destination; another file that stands there is copied to `replaced/` first."""
    keep_replaced(job, but=encode_product(product))
    save_product(job.destination, product)


def keep_replaced(job: TrainingJob, *, but: bytes) -> None:
    """Keep what the destination holds now, unless it is `but`, under the first free name in the run's `replaced/`."""
    try:
        data = job.destination.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(job.destination, error) from error
    if data == but:
        return
    folder, number = job.folder / "replaced", 0
    while True:
        suffix = f"-{number}" if number else ""
        target = folder / f"{job.destination.stem}{suffix}{job.destination.suffix}"
        if not target.exists():
            write_atomically(target, data)
            return
        if target.read_bytes() == data:
            return
        number += 1


def _row(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _step_of(line: str) -> float:
    """The step of a row; infinity when the line is no row of ours."""
    first = line.split(",", 1)[0]
    return int(first) if first.isdecimal() else float("inf")
