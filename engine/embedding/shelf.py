"""Words as they stand on the shelf: what is known of each without its vectors, which are read when a prompt uses it.

Made by the worker for every usable word of the embeddings folder, and by training for the word that is being trained.
No torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors


@dataclass(frozen=True)
class Word:
    """One word that prompts may use."""

    name: str
    vectors: int
    """Places that it takes in a prompt."""
    width: int
    split: int
    """See `Embedding.split`."""
    hash: str
    """SHA-256 of its file, 64 hex digits: pictures' parameters name the first 12."""
    model: str
    """Name of the base model that it was trained on, where known; as is `model_hash`."""
    model_hash: str
    load: Callable[[], Embedding]
    """Gives the word itself; may read a file, and raises VocableError when that is not what it was."""


def shelve(embedding: Embedding) -> Word:
    """A word that is in memory already; its hash is that of the file that `encode_safetensors` makes of it.

    Raises:
        VocableError: from `check_vectors`, for vectors that no reader would take.
    """
    rows, width = embedding.vectors.shape
    return Word(
        name=embedding.name,
        vectors=rows,
        width=width,
        split=embedding.split,
        hash=hashlib.sha256(encode_safetensors(embedding)).hexdigest(),
        model=embedding.model,
        model_hash=embedding.model_hash,
        load=lambda: embedding,
    )
