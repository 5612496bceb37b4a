"""What an embedding's file says of its origin: `modelspec.*` as other trainers write it, and `vocable.*` for the rest.

Used by whoever makes or writes embeddings. No torch. All values are strings; the keys are written down here only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from engine.embedding.vectors import Embedding
from engine.models.catalog import ModelEntry

STEP = "vocable.step"
MODEL = "vocable.model"
MODEL_HASH = "vocable.model_hash"

_PREDICTION = {"epsilon": "epsilon", "v_prediction": "v"}
_PACKAGES = ("vocable", "torch", "diffusers", "transformers")


def describe(
    model: ModelEntry, *, prediction_type: str, init_text: str | None, recipe: str = "", created_at: float | None = None
) -> dict[str, str]:
    """Describe how a word or hypernetwork came about, as the `metadata` of either.

    Args:
        init_text: None for a hypernetwork, which begins with no text.
        prediction_type: as in `engine.models.load.Model`.
        recipe: the run's recipe as TOML, when the word was trained.
        created_at: seconds since the epoch (UTC); left out when None.
    """
    entries = {
        "modelspec.resolution": f"{model.size}x{model.size}",
        "modelspec.prediction_type": _PREDICTION.get(prediction_type, prediction_type),
        "vocable.versions": _versions(),
    }
    if init_text is not None:
        entries["vocable.init_text"] = init_text
    if recipe:
        entries["vocable.recipe"] = recipe
    if created_at is not None:
        entries["modelspec.date"] = datetime.fromtimestamp(created_at, UTC).isoformat(timespec="seconds")
    return entries


def header_entries(embedding: Embedding) -> dict[str, str]:
    """All entries of an embedding's file: its own metadata, and what follows from its fields."""
    return {
        **embedding.metadata,
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _architecture(embedding),
        "modelspec.implementation": "diffusers",
        "modelspec.title": embedding.name,
        "modelspec.trigger_phrase": embedding.name,
        "vocable.name": embedding.name,
        "vocable.vectors": str(len(embedding.vectors)),
        STEP: str(embedding.step),
        MODEL: embedding.model,
        MODEL_HASH: embedding.model_hash,
    }


def _architecture(embedding: Embedding) -> str:
    """As kohya's trainers name it; what the file was read with, for a family that has no such name."""
    widths = tuple(rows.shape[1] for rows in embedding.encoders().values())
    prediction = embedding.metadata.get("modelspec.prediction_type")
    known = {
        (768,): "stable-diffusion-v1",
        (1024,): "stable-diffusion-v2-768-v" if prediction == "v" else "stable-diffusion-v2-512",
        (768, 1280): "stable-diffusion-xl-v1-base",
    }
    if widths in known:
        return f"{known[widths]}/textual-inversion"
    return embedding.metadata.get("modelspec.architecture", "other/textual-inversion")


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
