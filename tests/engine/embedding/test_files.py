"""What we write reads back bit for bit, here and in the libraries that others use."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.embedding.metadata import describe
from engine.embedding.payload import KEY, encode_payload
from engine.embedding.png import SIGNATURE, encode_chunk
from engine.embedding.read import read_embedding
from engine.embedding.shelf import shelve
from engine.embedding.vectors import MAX_MAGNITUDE, Embedding
from engine.embedding.write import encode_safetensors, save_embedding
from engine.errors import VocableError
from engine.models.catalog import ModelEntry

finite = st.floats(-MAX_MAGNITUDE, MAX_MAGNITUDE, width=32)
tables = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=finite)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def word(**values: Any) -> Embedding:
    vectors = np.random.default_rng(3).normal(size=(4, 128)).astype(np.float32)
    return Embedding(
        **{"name": "lyra", "vectors": vectors, "step": 120, "model": "starter", "model_hash": "0a1b2c3d4e"} | values
    )


@given(tables, st.integers(0, 10**12), texts, st.dictionaries(texts.map("note.{}".format), texts, max_size=5))
def test_a_safetensors_file_gives_the_embedding_back(
    vectors: np.ndarray[Any, Any], step: int, model: str, metadata: dict[str, str]
) -> None:
    data = encode_safetensors(word(vectors=vectors, step=step, model=model, metadata=metadata))
    found = read_embedding(data, "lyra")
    assert found.vectors.tobytes() == vectors.tobytes()
    assert found.vectors.shape == vectors.shape
    assert (found.step, found.model, found.model_hash) == (step, model, "0a1b2c3d4e")
    assert metadata.items() <= found.metadata.items()
    assert encode_safetensors(found) == data


@given(tables, st.integers(0, 10**12), texts)
def test_a_picture_chunk_gives_the_embedding_back(vectors: np.ndarray[Any, Any], step: int, model: str) -> None:
    text = encode_payload(word(vectors=vectors, step=step, model=model)).encode()
    chunks = (b"IHDR", bytes(13)), (b"tEXt", KEY.encode() + b"\0" + text), (b"IEND", b"")
    found = read_embedding(SIGNATURE + b"".join(encode_chunk(*chunk) for chunk in chunks), "vega")
    assert found.vectors.tobytes() == vectors.tobytes()
    assert (found.name, found.step, found.model, found.model_hash) == ("vega", step, model, "0a1b2c3d4e")


def test_the_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    save_embedding(tmp_path / "lyra.safetensors", word())
    with safetensors.safe_open(tmp_path / "lyra.safetensors", framework="numpy") as file:
        metadata = file.metadata()
        assert file.get_tensor("emb_params").tobytes() == word().vectors.tobytes()
    assert metadata["format"] == "pt"
    assert metadata["modelspec.title"] == metadata["vocable.name"] == "lyra"
    assert (metadata["vocable.step"], metadata["vocable.vectors"]) == ("120", "4")


@pytest.mark.parametrize(("dtype", "exact"), [(np.float16, True), (np.float32, True), (np.float64, False)])
def test_we_read_what_the_safetensors_library_writes(dtype: Any, exact: bool) -> None:
    values = np.random.default_rng(1).normal(size=(3, 768)).astype(dtype)
    found = read_embedding(safetensors.numpy.save({"emb_params": values}), "lyra")
    assert np.array_equal(found.vectors, values.astype(np.float32))
    assert (np.array_equal(found.vectors, values)) is exact


def test_bfloat16_and_single_vectors_are_read() -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    values = torch.randn(768, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = read_embedding(save({"emb_params": values}), "lyra")
    assert np.array_equal(found.vectors, values.float().numpy()[None])


def test_the_header_says_how_the_word_came_about(starter_entry: ModelEntry) -> None:
    about = describe(
        starter_entry, prediction_type="v_prediction", init_text="girl", recipe='name = "lyra"', created_at=0
    )
    found = read_embedding(encode_safetensors(word(metadata=about)), "lyra").metadata
    assert found["modelspec.date"] == "1970-01-01T00:00:00+00:00"
    assert found["vocable.recipe"] == 'name = "lyra"'
    assert found["modelspec.architecture"].endswith("/textual-inversion")
    assert "torch" in found["vocable.versions"]


def test_the_hash_is_that_of_the_file_and_of_its_content(tmp_path: Path) -> None:
    save_embedding(tmp_path / "lyra.safetensors", word())
    data = (tmp_path / "lyra.safetensors").read_bytes()
    assert shelve(word()).hash == hashlib.sha256(data).hexdigest() == shelve(read_embedding(data, "lyra")).hash
    assert shelve(word()).hash != shelve(word(vectors=word().vectors + 1)).hash


def test_the_word_is_called_as_its_file_whatever_the_file_says() -> None:
    assert read_embedding(encode_safetensors(word()), "vega (2)").name == "vega 2"
    with pytest.raises(VocableError) as caught:
        read_embedding(encode_safetensors(word()), "///")
    assert caught.value.code == "embedding.name"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_spoilt_vectors_are_not_written_and_spoil_no_older_file(tmp_path: Path, value: float) -> None:
    path = tmp_path / "lyra.safetensors"
    save_embedding(path, word())
    before = path.read_bytes()
    vectors = word().vectors.copy()
    vectors[1, 5] = value
    with pytest.raises(VocableError, match="'lyra'") as caught:
        save_embedding(path, word(vectors=vectors))
    assert caught.value.code == "embedding.not_finite"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_gives_back_something_else_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lyra.safetensors"
    save_embedding(path, word())
    before = path.read_bytes()
    real = Path.read_bytes

    def flip(self: Path) -> bytes:
        data = bytearray(real(self))
        data[-1] ^= 1
        return bytes(data)

    monkeypatch.setattr(Path, "read_bytes", flip)
    with pytest.raises(VocableError) as caught:
        save_embedding(path, word(step=121))
    monkeypatch.undo()
    assert caught.value.code == "disk.verify"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
