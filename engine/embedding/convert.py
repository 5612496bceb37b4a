"""Writes a word in the format of another program, and says what that format cannot hold.

Called in the inspector, for `vocable convert`. No torch. The invariant: no bytes leave here that our own readers did
not give back bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from engine.embedding.metadata import header_entries
from engine.embedding.overlay import encode_carrier
from engine.embedding.read import read_words
from engine.embedding.tensors import encode_tensors
from engine.embedding.vectors import Embedding, check_vectors
from engine.embedding.webui import encode_webui
from engine.embedding.write import encode_safetensors, is_same
from engine.errors import VocableError
from engine.names import sanitize_name
from engine.text import escape

Format = Literal["safetensors", "webui-pt", "diffusers", "onetrainer", "png"]

_LABELS = {
    "vocable.init_text": "init text",
    "vocable.recipe": "recipe",
    "vocable.versions": "versions",
    "modelspec.date": "date",
    "modelspec.resolution": "resolution",
    "modelspec.prediction_type": "prediction type",
}
_SHOWN_LABELS = 8

_PLAIN_PX, _PLAIN_COLOUR = 512, (58, 66, 84)

_NOTE_LOSSLESS = (
    "Only copies that are lossless and unscaled keep the word: as JPEG, or after an upload that shrinks, it is gone."
)
_NOTE_INVOKEAI = "InvokeAI does not recognise this layout; it takes safetensors and webui-pt."
_NOTE_HALVES = (
    "There are two files, one for each text encoder of SDXL: load the first with tokenizer and text_encoder, the one"
    " with _2 with tokenizer_2 and text_encoder_2. No program but diffusers takes them; others read safetensors."
)


@dataclass(frozen=True)
class Converted:
    """Files that were read again and hold the word bit for bit."""

    files: tuple[tuple[str, bytes], ...]
    """What follows the name, e.g. `.pt` or `_2.safetensors`, and the content."""
    notes: tuple[str, ...]
    """What the format cannot hold and is lost, and what a reader should know; escaped."""


def convert(embedding: Embedding, format: Format, *, picture: Image.Image | None = None) -> Converted:
    """Write a word in another format.

    Args:
        picture: for `png`, the picture to write the word into, upright; a plain one when None.

    Raises:
        VocableError: `embedding.shape`, `.not_finite`; `embedding.unsupported` or `picture.small` for `png`;
            `embedding.verify` when the format would not give the word back.
    """
    check_vectors(embedding.name, embedding.vectors)
    if format == "diffusers":
        return _convert_to_diffusers(embedding)
    if format == "onetrainer":
        tensors = embedding.encoders() if embedding.split else {"emp_params": embedding.vectors}
        data = encode_tensors(tensors, header_entries(embedding))
        return _check(embedding, ".safetensors", data, *(() if embedding.split else (_NOTE_INVOKEAI,)))
    if format == "webui-pt":
        return _check(embedding, ".pt", encode_webui(embedding), *_losses(embedding))
    if format == "png":
        carrier = encode_carrier(embedding, picture or Image.new("RGB", (_PLAIN_PX, _PLAIN_PX), _PLAIN_COLOUR))
        return _check(embedding, ".png", carrier, *_losses(embedding), _NOTE_LOSSLESS)
    return _check(embedding, ".safetensors", encode_safetensors(embedding))


def join_halves(left: Embedding, right: Embedding) -> Embedding:
    """Make one word for two text encoders out of the two files in which diffusers keeps it; SDXL's in either order.

    Name and origin are those of the first encoder's half; what that does not say is taken from the other.

    Raises:
        VocableError: `embedding.halves` when the two are not the halves of one word.
    """
    if (left.vectors.shape[1], right.vectors.shape[1]) == (1280, 768):
        left, right = right, left
    width = left.vectors.shape[1]
    problem = ""
    if left.split or right.split:
        problem = "one of them is a whole SDXL word already"
    elif len(left.vectors) != len(right.vectors):
        problem = "their numbers of vectors differ"
    elif width == right.vectors.shape[1] >= 768:
        problem = "both are for the same text encoder"
    if problem:
        title = (
            f"The files of '{left.name}' ({_size(left)}) and '{right.name}' ({_size(right)}) are no pair: {problem}."
        )
        hint = "Give the two files that were saved together, such as learned_embeds and learned_embeds_2."
        raise VocableError("embedding.halves", title, hint)
    return replace(
        left,
        vectors=check_vectors(left.name, np.concatenate([left.vectors, right.vectors], axis=1)),
        split=width,
        step=left.step or right.step,
        model=left.model or right.model,
        model_hash=left.model_hash or right.model_hash,
        metadata={**right.metadata, **left.metadata},
        trigger=left.trigger or right.trigger,
    )


def _convert_to_diffusers(embedding: Embedding) -> Converted:
    """One tensor a file, called like the word; the header speaks of the whole word."""
    files: list[tuple[str, bytes]] = []
    for suffix, rows in zip(("", "_2"), embedding.encoders().values(), strict=False):
        data = encode_tensors({embedding.name: rows}, header_entries(embedding))
        files += _check(replace(embedding, vectors=rows, split=0), f"{suffix}.safetensors", data).files
    return Converted(tuple(files), (_NOTE_HALVES if embedding.split else _NOTE_INVOKEAI,))


def _check(embedding: Embedding, suffix: str, data: bytes, *notes: str) -> Converted:
    """Read a file again as if it were a stranger's, and refuse one that holds anything but this word."""
    reason = "It holds something else."
    try:
        words = read_words(data, embedding.name).words
        if [word.name for word in words] == [sanitize_name(embedding.name)] and is_same(words[0], embedding):
            return Converted(((suffix, data),), notes)
    except VocableError as error:
        reason = error.title
    title = f"A {suffix} file of the word '{embedding.name}' would not be read as it is written: {reason}"
    raise VocableError("embedding.verify", title, "Choose another format or another name; nothing was written.")


def _losses(embedding: Embedding) -> list[str]:
    """What webui's layout, in a `.pt` file or a picture, has no place for."""
    derived = header_entries(replace(embedding, metadata={}))
    labels = [escape(_LABELS.get(key, key), 40) for key in embedding.metadata if key not in derived]
    if embedding.split:
        known = {"name": True, "step": embedding.step, "model": embedding.model or embedding.model_hash}
        labels = [label for label, value in known.items() if value] + labels
    if len(labels) > _SHOWN_LABELS:
        labels = [*labels[: _SHOWN_LABELS - 1], f"{len(labels) - _SHOWN_LABELS + 1} more"]
    return [f"The format has no place for: {', '.join(labels)}."] if labels else []


def _size(embedding: Embedding) -> str:
    return " x ".join(str(edge) for edge in embedding.vectors.shape)
