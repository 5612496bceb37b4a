"""Reads an embedding from the bytes of a file, by content and not by extension.

Called in the inspector for foreign files and in the worker for our own. No torch; nothing in a file is ever executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.embedding.metadata import MODEL, MODEL_HASH, STEP
from engine.embedding.payload import KEY, decode_payload
from engine.embedding.png import SIGNATURE, find_text
from engine.embedding.tensors import decode_tensors
from engine.embedding.vectors import Embedding, check_vectors
from engine.errors import VocableError
from engine.names import sanitize_name

MAX_BYTES = 32 << 20
MAX_PICTURE_BYTES = 64 << 20

TENSOR = "emb_params"
"""The one key of an embedding's safetensors file."""


@dataclass(frozen=True)
class WordFile:
    """What a file holds: at least one word."""

    flavour: str
    """The layout and the container, for people, e.g. `webui .pt (zip)`."""
    words: tuple[Embedding, ...]


def read_words(data: bytes, stem: str) -> WordFile:
    """Read every word of a file; see `read_embedding`."""
    word = read_embedding(data, stem)
    picture = data.startswith(SIGNATURE)
    return WordFile("webui PNG (text chunk)" if picture else "emb_params .safetensors", (word,))


def read_embedding(data: bytes, stem: str) -> Embedding:
    """Read a word from a safetensors file (`emb_params`) or a PNG picture that carries one.

    Args:
        data: the whole file.
        stem: its name without extension; made lawful, it is the word. A name inside the file is not used.

    Raises:
        VocableError: `embedding.absent` for a picture without a word; `embedding.unsupported` for other layouts of
            embeddings; `embedding.unreadable`, `.shape`, `.not_finite`, `.name` for what cannot be used.
    """
    name = sanitize_name(stem)
    if not name:
        title = f"The file name {stem!r} holds nothing that could name a word."
        raise VocableError("embedding.name", title, "Rename the file: letters, digits, blanks and . _ - are possible.")
    is_picture = data.startswith(SIGNATURE)
    limit = MAX_PICTURE_BYTES if is_picture else MAX_BYTES
    if not 1 <= len(data) <= limit:
        title = f"The file is {len(data)} bytes long; an embedding has 1 to {limit}."
        raise VocableError("embedding.unreadable", title, "Copy the file again, or choose another.")
    if is_picture:
        return _read_picture(data, name)
    if data[8:9] == b"{":
        return _read_safetensors(data, name)
    if data.startswith((b"PK", b"\x80")):
        raise _unsupported("a pickled file (.pt, .bin)")
    raise VocableError(
        "embedding.unreadable",
        "The file is neither safetensors nor a PNG picture.",
        "Use a .safetensors embedding, or a PNG that carries one.",
    )


def _read_picture(data: bytes, name: str) -> Embedding:
    value = find_text(data, KEY)
    if value is None:
        title = "The picture carries no word."
        raise VocableError("embedding.absent", title, "Use a preview picture that was saved with its embedding.")
    return decode_payload(value, name)


def _read_safetensors(data: bytes, name: str) -> Embedding:
    tensors, metadata = decode_tensors(data)
    if tensors.keys() != {TENSOR}:
        if {"clip_l", "clip_g"} <= tensors.keys():
            raise _unsupported("an SDXL embedding (clip_l and clip_g)")
        shown = ", ".join(ascii(key[:40]) for key in sorted(tensors)[:4]) or "nothing"
        raise _unsupported(f"a file that holds {shown}")
    return Embedding(
        name=name,
        vectors=check_vectors(name, tensors[TENSOR]),
        step=_count(metadata.get(STEP, "")),
        model=metadata.get(MODEL, ""),
        model_hash=metadata.get(MODEL_HASH, ""),
        metadata=_bounded(metadata),
    )


def _count(digits: str) -> int:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else 0


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Leave room for the entries that our own header adds, so that whatever was read can be written."""
    return dict(list(metadata.items())[:48])


def _unsupported(what: str) -> VocableError:
    title = f"The file is {what}; only safetensors with {TENSOR}, and PNG pictures with a word, are read."
    return VocableError("embedding.unsupported", title, "Save the embedding again as safetensors with emb_params.")
