"""What a training run is given from outside: its recipe with everything looked up, its folders, and commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.preflight import Resolved
from engine.recipe import Recipe


@dataclass
class Control:
    """Commands to a run, and how far it is; worker and run speak from the same thread, between two steps."""

    ask: Literal["", "pause", "stop"] = ""
    """Set by the worker."""
    step: int | None = None
    """Steps done, set by the run; None before it knows."""


@dataclass(frozen=True)
class TrainingJob:
    recipe: Recipe
    resolved: Resolved
    folder: Path
    """The run's own folder: logs, copies, previews, checkpoints."""
    latents: Path
    """Cache of latents, shared by all runs."""
    destination: Path
    """Where the trained word is written: `embeddings/NAME.safetensors`."""

    @property
    def width(self) -> int:
        """Training width in pixels."""
        return self.recipe.data.width or self.resolved.model.size

    @property
    def height(self) -> int:
        """Training height in pixels."""
        return self.recipe.data.height or self.resolved.model.size
