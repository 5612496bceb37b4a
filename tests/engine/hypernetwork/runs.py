"""Runs of hypernetworks on the starter model, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.preflight import check_recipe
from engine.recipe import build_recipe
from engine.training.job import TrainingJob

TABLE = "hypernetwork_loss.csv"


def build_job(root: Path, dataset: Path, run: str = "run", **settings: Any) -> TrainingJob:
    """A job of six steps; settings are `group__field=value`, `run` names its folder."""
    values: dict[str, dict[str, Any]] = {
        "start": {"activation": "rrelu", "dropout": [0, 0.3, 0], "widths": [128, 160]},
        "data": {"folder": str(dataset)},
        "train": {"learn_rate": "1e-3", "steps": 6, "batch_size": 2},
        "save": {"every": 0, "images_every": 0, "checkpoint_every": 2},
        "preview": {"steps": 1, "cfg_scale": 1, "width": 32, "height": 32},
    }
    for name, value in settings.items():
        group, field = name.split("__")
        values[group][field] = value
    recipe = build_recipe({"kind": "hypernetwork", "name": "ink", **values})
    resolved = check_recipe(recipe, models=[], datasets=[], templates=[])
    destination = root / run / "hypernetworks" / "ink.safetensors"
    return TrainingJob(recipe, resolved, root / run, root / "latents", destination)
