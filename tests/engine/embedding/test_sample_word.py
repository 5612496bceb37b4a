"""The word that ships in `embeddings/`, as a picture that carries it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.embedding.read import read_embedding
from engine.models.catalog import ModelEntry

SAMPLE = Path(__file__).parents[3] / "embeddings" / "zara.png"


def test_the_sample_word_fits_the_starter_that_ships_beside_it(starter_entry: ModelEntry) -> None:
    embedding = read_embedding(SAMPLE.read_bytes(), SAMPLE.stem)
    assert (embedding.name, embedding.model, embedding.model_hash) == ("zara", "starter", starter_entry.hash)
    assert embedding.vectors.shape == (12, starter_entry.width)
    assert np.isfinite(embedding.vectors).all()
