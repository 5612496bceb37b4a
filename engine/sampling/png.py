"""Saves pictures as PNG, with the text that makes them again and, for previews, the word they show."""

from __future__ import annotations

import io
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from engine.embedding.overlay import encode_carrier
from engine.embedding.payload import KEY, encode_payload
from engine.embedding.read import read_embedding
from engine.embedding.vectors import Embedding
from engine.embedding.write import is_same
from engine.errors import VocableError
from engine.files import write_atomically
from engine.sampling.generate import Picture


def save_picture(path: Path, picture: Picture, embedding: Embedding | None = None) -> None:
    """Write the picture whole or not at all, with its `parameters` and, when given, its embedding.

    Dropped into an embeddings folder, such a picture is a word: here under its file's name, in other programs under
    the embedding's.

    Raises:
        VocableError: `disk.full`, `disk.write`; `disk.verify` when the embedding does not read back bit for bit.
    """
    texts = PngInfo()
    texts.add_text("parameters", picture.parameters)
    if embedding is not None:
        texts.add_text(KEY, encode_payload(embedding))
    buffer = io.BytesIO()
    picture.image.save(buffer, "PNG", pnginfo=texts)
    _write(path, buffer.getvalue(), embedding)


def save_carrier(path: Path, picture: Picture, embedding: Embedding) -> None:
    """Write the picture with a caption, and with its embedding in the pixels too, so that copies without text keep it.

    Raises:
        VocableError: as `save_picture`, and from `encode_carrier`.
    """
    _write(path, encode_carrier(embedding, picture.image), embedding)


def _write(path: Path, data: bytes, embedding: Embedding | None) -> None:
    def verify(written: bytes) -> None:
        if embedding is not None and not is_same(read_embedding(written, embedding.name), embedding):
            title = f"The embedding in {path} did not read back as it was written."
            raise VocableError("disk.verify", title, "Check the disk; the file was not put in place.")

    write_atomically(path, data, verify=verify)
