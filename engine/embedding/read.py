"""Reads embeddings from the bytes of a file, by content and not by extension.

Called in the inspector for foreign files and in the worker for our own. No torch; nothing in a file is ever executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedding import archive
from engine.embedding.archive import decode_archive
from engine.embedding.images import decode_png, decode_webp
from engine.embedding.kinds import PICTURES, name_file
from engine.embedding.layouts import find_words
from engine.embedding.legacy import decode_legacy
from engine.embedding.metadata import MODEL, MODEL_HASH, STEP
from engine.embedding.payload import KEY, decode_payload, parse_payload
from engine.embedding.pixels import decode_pixels
from engine.embedding.png import SIGNATURE, find_text
from engine.embedding.tensors import decode_tensors
from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from engine.names import sanitize_name

MAX_BYTES = 32 << 20
MAX_LARGE_BYTES = 64 << 20
"""For pictures, and for safetensors, which may be a LoRA that brings embeddings along."""

TENSOR = "emb_params"
"""The one key of the safetensors file of a word for one text encoder."""

_KEPT = 48
"""Entries of metadata that are kept: leaves room for those that our own header adds."""

_PICKLES = (*(b"\x80" + bytes([protocol]) for protocol in range(6)), b"L119547037146038801333356L\n")
_SUFFIXES = {"webui": ".pt", "original": ".pt", "diffusers": ".bin"}


@dataclass(frozen=True)
class WordFile:
    """What a file holds: at least one word."""

    flavour: str
    """The layout and the container, for people, e.g. `webui .pt (zip)`."""
    words: tuple[Embedding, ...]


def read_embedding(data: bytes, stem: str) -> Embedding:
    """Read the one word of a file; see `read_words`.

    Raises:
        VocableError: also `embedding.several` when the file holds more than one.
    """
    words = read_words(data, stem).words
    if len(words) > 1:
        names = ", ".join(word.name for word in words[:4])
        title = f"The file holds {len(words)} words ({names}{', ...' if len(words) > 4 else ''}), not one."
        raise VocableError("embedding.several", title, "Say which of them is meant.")
    return words[0]


def read_words(data: bytes, stem: str) -> WordFile:
    """Read every word of a file of any known kind.

    Args:
        data: the whole file.
        stem: its name without extension; made lawful, it is the word. A name inside the file is not used, but for the
            several words that a LoRA brings along.

    Raises:
        VocableError: `embedding.absent` for a picture without a word; `embedding.unsupported` for files that are
            something else; `embedding.unreadable`, `.shape`, `.not_finite`, `.name` for what cannot be used.
    """
    name = sanitize_name(stem)
    if not name:
        title = f"The file name {stem!r} holds nothing that could name a word."
        raise VocableError("embedding.name", title, "Rename the file: letters, digits, blanks and . _ - are possible.")
    is_png, is_webp = data.startswith(SIGNATURE), data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    is_safetensors = data[8:9] == b"{" and not is_png
    limit = MAX_LARGE_BYTES if is_png or is_webp or is_safetensors else MAX_BYTES
    if not 1 <= len(data) <= limit:
        title = f"The file is {len(data)} bytes long; an embedding has 1 to {limit}."
        raise VocableError("embedding.unreadable", title, "Copy the file again, or choose another.")
    if is_png or is_webp:
        return _read_picture(data, stem, name, is_png)
    if any(data.startswith(magic, place) for place, magic in PICTURES):
        raise _absent()
    if is_safetensors:
        return _read_safetensors(data, name)
    if data.startswith(archive.SIGNATURE):
        return _read_pickled(decode_archive(data), name, "zip")
    if data.startswith(_PICKLES):
        return _read_pickled(decode_legacy(data), name, "legacy")
    what = name_file(data)
    title = f"The file is {what}." if what else "The file is of no kind that embeddings are kept in."
    hint = "Use a .safetensors, .pt or .bin embedding, or a picture that carries one."
    raise VocableError("embedding.unreadable", title, hint)


def _read_picture(data: bytes, stem: str, name: str, is_png: bool) -> WordFile:
    """The text of a picture goes before its pixels; a preview is not looked at."""
    if stem.lower().endswith(".preview"):
        raise _absent()
    chunk = find_text(data, KEY) if is_png else None
    if chunk is not None:
        values, place = decode_payload(chunk), "text chunk"
    else:
        payload = _find_payload(decode_png(data) if is_png else decode_webp(data))
        if payload is None:
            raise _absent()
        values, place = parse_payload(payload), "pixels"
    layout, words = find_words(values, name, values)
    return WordFile(f"{layout} {'PNG' if is_png else 'WebP'} ({place})", words)


def _find_payload(pixels: NDArray[np.uint8] | None) -> bytes | None:
    return None if pixels is None else decode_pixels(pixels)


def _absent() -> VocableError:
    return VocableError(
        "embedding.absent",
        "The picture carries no word.",
        "Use a picture that was saved with its embedding, as PNG or lossless WebP and unchanged since.",
    )


def _read_pickled(values: object, name: str, serialisation: str) -> WordFile:
    layout, words = find_words(values, name, values if isinstance(values, dict) else {})
    return WordFile(f"{layout} {_SUFFIXES.get(layout, '.pt')} ({serialisation})", words)


def _read_safetensors(data: bytes, name: str) -> WordFile:
    tensors, metadata = decode_tensors(data)
    layout, words = find_words(tensors, name, _origin(metadata))
    if len(words) == 1:
        words = (replace(words[0], metadata=dict(list(metadata.items())[:_KEPT])),)
    return WordFile(f"{layout} .safetensors", words)


def _origin(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a header says of its word, under webui's keys; other trainers' keys stand behind our own."""

    def first(*keys: str) -> str:
        return next((metadata[key] for key in keys if metadata.get(key)), "")

    return {
        "step": _count(first(STEP, "step", "ss_steps")),
        "sd_checkpoint_name": first(MODEL, "sd_checkpoint_name", "ss_sd_model_name"),
        "sd_checkpoint": first(MODEL_HASH, "sd_checkpoint", "ss_sd_model_hash"),
        "name": first("modelspec.trigger_phrase", "vocable.name", "name"),
    }


def _count(digits: str) -> int:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else 0
