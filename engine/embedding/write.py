"""Writes embeddings: one safetensors file with `emb_params`, which webui, ComfyUI, InvokeAI, diffusers and kohya read.

Called in the worker for results, and in the inspector for the canonical copy of a foreign file. No torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.embedding.metadata import header_entries
from engine.embedding.read import TENSOR, read_embedding
from engine.embedding.tensors import encode_tensors
from engine.embedding.vectors import Embedding, check_vectors
from engine.errors import VocableError
from engine.files import write_atomically


def encode_safetensors(embedding: Embedding) -> bytes:
    """The canonical file of an embedding: equal embeddings give equal bytes, and reading these gives it back.

    Raises:
        VocableError: from `check_vectors`, for vectors that no reader would take.
    """
    vectors = check_vectors(embedding.name, embedding.vectors)
    return encode_tensors({TENSOR: vectors}, header_entries(embedding))


def hash_embedding(embedding: Embedding) -> str:
    """12 hex digits of the SHA-256 of the canonical file: how a picture's parameters name the content of a word."""
    return hashlib.sha256(encode_safetensors(embedding)).hexdigest()[:12]


def save_embedding(path: Path, embedding: Embedding) -> None:
    """Write the file, read it again and compare bit for bit before it takes its name.

    Raises:
        VocableError: `disk.full`, `disk.write`, or `disk.verify` when the disk gave back something else.
    """
    data = encode_safetensors(embedding)

    def verify(written: bytes) -> None:
        read = read_embedding(written, embedding.name)
        if written != data or read.vectors.tobytes() != embedding.vectors.tobytes() or read.step != embedding.step:
            title = f"{path} did not read back as it was written."
            raise VocableError("disk.verify", title, "Check the disk; the file was not put in place.")

    write_atomically(path, data, verify=verify)
