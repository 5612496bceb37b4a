"""Describes the words of a file for people and programs, as `vocable inspect` shows them.

Called in the inspector. No torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedding.read import read_words
from engine.embedding.vectors import Embedding


def describe_file(data: bytes, stem: str) -> dict[str, Any]:
    """Describe a file in plain values: `flavour`, and `words` with all that can be said without a model.

    Texts from the file are as they stand there: escape them before they are shown.

    Raises:
        VocableError: as `read_words`.
    """
    file = read_words(data, stem)
    return {"flavour": file.flavour, "words": [describe_word(word) for word in file.words]}


def describe_word(word: Embedding) -> dict[str, Any]:
    """Describe one word: the fields of the protocol's WordReport that no model is needed for."""
    rows, width = word.vectors.shape
    return {
        "name": word.name,
        "trigger": word.trigger,
        "vectors": rows,
        "width": width,
        "family": word.family,
        "encoders": [
            {"key": key, "width": part.shape[1], "norms": norms(part)} for key, part in word.encoders().items()
        ],
        "step": word.step,
        "model": word.model,
        "model_hash": word.model_hash,
        "checksum": "" if word.split else checksum(word.vectors),
    }


def norms(vectors: NDArray[np.float32]) -> list[float]:
    """Euclidean length of each vector, from sums in float64."""
    lengths: list[float] = np.sqrt(np.square(vectors.astype(np.float64)).sum(axis=1)).tolist()
    return lengths


def checksum(vectors: NDArray[np.float32]) -> str:
    """4 hex digits by which webui matches an optimizer's file to its embedding (`reference/webui.md` 2.5)."""
    total = 0
    with np.errstate(over="ignore"):
        hundredths = (vectors.astype(np.float32).reshape(-1) * np.float32(100)).tolist()
    for value in hundredths:
        total = (total * 281 ^ int(value) * 997) & 0xFFFFFFFF
    return f"{total & 0xFFFF:04x}"
