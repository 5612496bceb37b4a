"""Writes embeddings as safetensors with `emb_params`, which webui, ComfyUI, InvokeAI, diffusers and kohya read.

A word for two encoders is `clip_l` and `clip_g`, which all of them but diffusers read.
Called in the worker for results, and in the inspector for the canonical copy of a foreign file. No torch.
"""

from __future__ import annotations

from pathlib import Path

from engine.embedding.metadata import header_entries
from engine.embedding.read import read_embedding
from engine.embedding.tensors import encode_tensors
from engine.embedding.vectors import Embedding, check_vectors
from engine.errors import VocableError
from engine.files import write_atomically


def encode_safetensors(embedding: Embedding) -> bytes:
    """The canonical file of an embedding: equal embeddings give equal bytes, and reading these gives it back.

    Raises:
        VocableError: from `check_vectors`, for vectors that no reader would take.
    """
    check_vectors(embedding.name, embedding.vectors)
    return encode_tensors(embedding.encoders(), header_entries(embedding))


def is_same(read: Embedding, written: Embedding) -> bool:
    """Whether two embeddings have the same vectors, bit for bit, for the same encoders."""
    same_shape = read.vectors.shape == written.vectors.shape and read.split == written.split
    return same_shape and read.vectors.tobytes() == written.vectors.tobytes()


def save_embedding(path: Path, embedding: Embedding) -> None:
    """Write the file, read it again and compare bit for bit before it takes its name.

    Raises:
        VocableError: `disk.full`, `disk.write`, or `disk.verify` when the disk gave back something else.
    """
    data = encode_safetensors(embedding)

    def verify(written: bytes) -> None:
        read = read_embedding(written, embedding.name)
        if written != data or not is_same(read, embedding) or read.step != embedding.step:
            title = f"{path} did not read back as it was written."
            raise VocableError("disk.verify", title, "Check the disk; the file was not put in place.")

    write_atomically(path, data, verify=verify)
