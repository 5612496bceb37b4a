"""An embedding: the vectors of one word and what is known of their origin.

Plain data in numpy, so that the inspector and every reader and writer of files work without torch. The invariant:
vectors are float32, finite, and between 1 and 128 rows. A word of SDXL, which has two text encoders, is one matrix
whose left columns belong to the first (`clip_l`) and whose right columns belong to the second (`clip_g`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.errors import VocableError

MAX_VECTORS = 128
"""More than any prompt can take in (75); leaves room to read what others wrote."""

MAX_WIDTH = 8192

MAX_MAGNITUDE = 65504.0
"""Largest number of half precision, in which a model may run."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """One word. Compared by identity; compare `vectors` bit for bit where equality matters."""

    name: str
    vectors: NDArray[np.float32]
    """[V, D], one row for each place that the word takes in a prompt; for two encoders D is the sum of their widths."""
    step: int = 0
    """Updates that the vectors have had."""
    model: str = ""
    """Name of the base model that they were trained on, where known."""
    model_hash: str = ""
    """Its hash: 10 hex digits, from some older programs 8."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Further entries for the file's header, e.g. from `engine.embedding.metadata.describe`."""
    split: int = 0
    """Columns of the first text encoder when the word has vectors for two; 0 for one encoder."""
    trigger: str = ""
    """The name that the file itself gives its word. For people only: the word is called `name`."""

    @property
    def family(self) -> str:
        """Models it is for, by its widths: `sd1`, `sd2`, `sdxl`, or `other`."""
        if self.split:
            return "sdxl" if (self.split, self.vectors.shape[1]) == (768, 768 + 1280) else "other"
        return {768: "sd1", 1024: "sd2"}.get(self.vectors.shape[1], "other")

    def encoders(self) -> dict[str, NDArray[np.float32]]:
        """The vectors of each text encoder, each contiguous: `clip_l` and `clip_g` for two, or `emb_params` for one."""
        if not self.split:
            return {"emb_params": self.vectors}
        left, right = self.vectors[:, : self.split], self.vectors[:, self.split :]
        return {"clip_l": np.ascontiguousarray(left), "clip_g": np.ascontiguousarray(right)}


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Raise VocableError `embedding.shape` unless a tensor of this shape is one vector or the rows of a word."""
    rows, width = (1, *shape)[-2:] if len(shape) in (1, 2) else (0, 0)
    if not 1 <= rows <= MAX_VECTORS or not 1 <= width <= MAX_WIDTH:
        raise VocableError(
            "embedding.shape",
            f"The word '{name}' holds {' x '.join(map(str, shape)) or 'a single number'} numbers, not 1 to"
            f" {MAX_VECTORS} vectors of at most {MAX_WIDTH}.",
            "Use a file that holds one textual-inversion embedding.",
        )


def check_vectors(name: str, values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Make float32 rows of what a file or a training run holds; a single vector becomes one row.

    Raises:
        VocableError: `embedding.shape` or `embedding.not_finite`, in words that name the word and the numbers.
    """
    check_shape(name, values.shape)
    rows = values[np.newaxis, :] if values.ndim == 1 else values
    with np.errstate(over="ignore", under="ignore"):
        rows = np.ascontiguousarray(rows, dtype=np.float32)
    if not np.isfinite(rows).all() or np.abs(rows).max() > MAX_MAGNITUDE:
        raise VocableError(
            "embedding.not_finite",
            f"The vectors of the word '{name}' hold NaN, infinity or numbers beyond {MAX_MAGNITUDE:.0f}.",
            "Use an earlier copy; these vectors were spoilt in training.",
        )
    return rows
