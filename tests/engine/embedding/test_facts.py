"""What is said of a file's words without a model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engine.embedding.facts import checksum, describe_file, norms
from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors


@pytest.mark.parametrize(
    ("vectors", "digits"),
    [
        (np.zeros(768), "0000"),
        (np.linspace(-0.5, 0.5, 768), "dc4a"),
        (np.arange(768) / 100, "c990"),
    ],
)
def test_the_checksum_is_that_of_webui(vectors: np.ndarray, digits: str) -> None:
    """Numbers of `reference/webui.md` 2.5, worked out by webui's own code."""
    assert checksum(vectors.astype(np.float32)) == digits
    assert checksum(vectors.astype(np.float32).reshape(3, 256)) == digits


def test_norms_are_lengths_of_the_vectors() -> None:
    assert norms(np.array([[3, 4], [0, 0], [1e4, 0]], np.float32)) == [5, 0, 10_000]


def test_a_file_is_described_in_plain_values() -> None:
    vectors = np.linspace(-0.5, 0.5, 768, dtype=np.float32)[None]
    data = encode_safetensors(Embedding("lyra", vectors, step=9, model="starter", model_hash="0a1b2c3d4e"))
    facts = describe_file(data, "vega")
    (word,) = facts["words"]
    assert json.loads(json.dumps(facts)) == facts
    assert facts["flavour"] == "emb_params .safetensors"
    assert (word["name"], word["trigger"], word["vectors"], word["width"]) == ("vega", "lyra", 1, 768)
    assert (word["family"], word["step"], word["checksum"]) == ("sd1", 9, "dc4a")
    assert (word["model"], word["model_hash"]) == ("starter", "0a1b2c3d4e")
    assert word["encoders"] == [{"key": "emb_params", "width": 768, "norms": norms(vectors)}]


def test_a_pair_is_described_by_encoder_and_has_no_checksum() -> None:
    vectors = np.concatenate([np.full((2, 768), 1.0), np.full((2, 1280), 2.0)], axis=1).astype(np.float32)
    (word,) = describe_file(encode_safetensors(Embedding("lyra", vectors, split=768)), "lyra")["words"]
    assert [(part["key"], part["width"]) for part in word["encoders"]] == [("clip_l", 768), ("clip_g", 1280)]
    assert word["encoders"][1]["norms"] == pytest.approx([2 * 1280**0.5] * 2)
    assert (word["width"], word["family"], word["checksum"]) == (2048, "sdxl", "")
