"""Which families of models have hypernetworks. No torch; asked before a run is queued, and again where one is used."""

from __future__ import annotations

from engine.errors import VocableError
from engine.models.catalog import ModelEntry


def check_family(entry: ModelEntry) -> None:
    """Refuse models of a family that has no hypernetworks. Raises VocableError `hypernetwork.model`."""
    if entry.family == "sdxl":
        raise VocableError(
            "hypernetwork.model",
            f"The model {entry.name} is of the SDXL family, for which there are no hypernetworks: its text is 2048"
            " numbers wide, and no program makes or reads modules of that width.",
            "Use a model of the SD 1.x or 2.x family, or train an embedding.",
        )
