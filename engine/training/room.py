"""Makes room on the device for a run: what would not fit is computed twice or put aside, and later put back.

Called by the training loop around its steps. Nothing here changes a number of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from engine.models.estimate import MemoryEstimate, estimate_memory
from engine.models.load import Model
from engine.models.placement import free_memory
from engine.recipe import Choice
from engine.training.job import TrainingJob

_SPARE = 0.9
"""Share of the free memory that is counted on: fragments and the libraries' own workspaces take the rest."""


@dataclass(frozen=True)
class Arrangement:
    """What is done to make a run fit."""

    checkpointing: bool
    offload: bool
    estimated_bytes: int


def arrange(estimate: MemoryEstimate, *, free_bytes: int | None, checkpointing: Choice, offload: Choice) -> Arrangement:
    """Choose the cheapest arrangement that fits: first the VAE leaves, then the U-Net is computed twice.

    Args:
        free_bytes: on the device beside the networks and with them; None where memory is no question.
    """
    room = float("inf") if free_bytes is None else free_bytes * _SPARE
    away, twice = offload == "on", checkpointing == "on"
    if offload == "auto" and estimate.needed(checkpointing=twice, offload=away) > room:
        away = True
    if checkpointing == "auto" and estimate.needed(checkpointing=twice, offload=away) > room:
        twice = True
    return Arrangement(twice, away, estimate.needed(checkpointing=twice, offload=away))


@contextmanager
def arranged(model: Model, job: TrainingJob, tell: Callable[[dict[str, Any]], None]) -> Iterator[Arrangement]:
    """Arrange the model for the steps of a run, and put everything back at the end.

    Args:
        tell: gets the estimate and what was chosen, and at the end what was really taken.
    """
    train = job.recipe.train
    estimate = estimate_memory(
        model.entry, item_bytes=model.dtype.itemsize, batch=train.batch_size, width=job.width, height=job.height
    )
    free = free_memory(model.device)
    found = arrange(
        estimate,
        free_bytes=None if free is None else free + estimate.networks,
        checkpointing=train.checkpointing,
        offload=train.offload,
    )
    chosen = {"checkpointing": found.checkpointing, "offload": found.offload}
    tell({"estimated_mib": found.estimated_bytes >> 20, **chosen})
    try:
        if found.checkpointing:
            model.unet.enable_gradient_checkpointing()
        if found.offload:
            model.park_vae()
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(model.device)
        yield found
        if model.device.type == "cuda":
            tell({"peak_mib": torch.cuda.max_memory_allocated(model.device) >> 20})
    finally:
        if found.checkpointing:
            model.unet.disable_gradient_checkpointing()
        model.unpark_vae()
