"""Embedding files for the tests of library and worker."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path

import numpy as np

from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors

WIDTH = 64


def embedding(fill: float = 0.5, *, vectors: int = 2, width: int = WIDTH) -> Embedding:
    return Embedding("anything", np.full((vectors, width), fill, np.float32), step=7, model="starter \x1b[31m")


def word_file(fill: float = 0.5, *, vectors: int = 2, width: int = WIDTH) -> bytes:
    return encode_safetensors(embedding(fill, vectors=vectors, width=width))


def drop(path: Path, data: bytes) -> Path:
    """Put a file there as a careful program does."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return path


def picture(text: bytes | None = None) -> bytes:
    """A PNG of one pixel, with or without the chunk that carries a word."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0\0\0\0"))]
    if text is not None:
        chunks.insert(1, (b"tEXt", b"sd-ti-embedding\0" + text))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def word_picture(fill: float = 0.5, *, vectors: int = 1, width: int = WIDTH) -> bytes:
    rows = [[fill] * width] * vectors
    values = {"string_to_token": {"*": 265}, "string_to_param": {"*": {"TORCHTENSOR": rows}}, "name": "x", "step": 3}
    return picture(base64.b64encode(json.dumps(values).encode()))
