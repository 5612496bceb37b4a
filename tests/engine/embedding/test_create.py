from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.embedding.create import create_embedding
from engine.models.load import Model


def rows(model: Model, text: str) -> NDArray[np.float32]:
    table = model.text_encoder.get_input_embeddings().weight.numpy()
    return np.asarray(table[model.tokenizer.ids(text)])


@pytest.mark.parametrize(
    ("text", "vectors", "tokens"),
    [
        ("girl", 1, [0]),
        ("girl", 4, [0, 0, 0, 0]),
        ("girl with hat", 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        ("girl with hat", 4, [0, 0, 1, 2]),
        ("girl with hat", 3, [0, 1, 2]),
        ("girl with hat", 2, [0, 1]),
        ("*", 2, [0, 0]),
    ],
)
def test_tokens_of_the_init_text_share_the_vectors(starter: Model, text: str, vectors: int, tokens: list[int]) -> None:
    found = create_embedding(starter, name="lyra", init_text=text, vectors=vectors).vectors
    assert found.dtype == np.float32
    assert found.tobytes() == rows(starter, text)[tokens].tobytes()


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_init_text_gives_zeros(starter: Model, text: str) -> None:
    found = create_embedding(starter, name="lyra", init_text=text, vectors=3).vectors
    assert found.shape == (3, starter.entry.width)
    assert not found.any()


def test_changing_the_vectors_leaves_the_model_alone(starter: Model) -> None:
    before = rows(starter, "girl").copy()
    create_embedding(starter, name="lyra", init_text="girl", vectors=1).vectors[:] = 7
    assert np.array_equal(rows(starter, "girl"), before)


def test_the_word_knows_where_it_comes_from(starter: Model) -> None:
    word = create_embedding(starter, name="lyra", init_text="girl with hat", vectors=2)
    assert (word.name, word.step, word.model, word.model_hash) == ("lyra", 0, "starter", starter.entry.hash)
    assert word.metadata["vocable.init_text"] == "girl with hat"
    assert word.metadata["modelspec.prediction_type"] == "v"
