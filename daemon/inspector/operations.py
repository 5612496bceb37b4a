"""What a child of the inspector can be asked, by name: bytes of foreign files in, plain values and our own bytes out.

Runs confined (`child`). Every operation takes the header of its question and the files' bytes, and returns a JSON-ready
header and further bytes; VocableError is told as an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from daemon.inspector.verdicts import STEM
from engine.dataset.pictures import decode_picture
from engine.embedding.convert import convert, join_halves
from engine.embedding.facts import describe_file
from engine.embedding.read import read_words
from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors
from engine.errors import VocableError
from engine.hypernetwork import facts as hypernetwork_facts
from engine.hypernetwork.convert import Format as HypernetworkFormat
from engine.hypernetwork.convert import convert as convert_hypernetwork
from engine.hypernetwork.optimizer_file import describe_optimizer
from engine.hypernetwork.read import is_hypernetwork, read_hypernetwork
from engine.hypernetwork.write import encode_safetensors as encode_hypernetwork
from engine.sampling.carriers import read_parameters

MAX_TEXT = 300
"""Longest text of a file that a verdict keeps, in characters."""

Message = dict[str, Any]
Answer = tuple[Message, Sequence[bytes]]


def read_as_words(header: Message, parts: Sequence[bytes]) -> Answer:
    """Read every word of a file; `contents` tells what they are, the parts are their canonical files in that order.

    The file is read under the stem STEM, so that the answer holds for every name that the file may have.
    """
    try:
        found = read_words(parts[0], STEM)
    except VocableError:
        if is_hypernetwork(parts[0]):
            raise _misplaced("embedding", "hypernetwork") from None
        raise
    canonical = [encode_safetensors(word) for word in found.words]
    return {"flavour": found.flavour[:MAX_TEXT], "contents": [_facts(word) for word in found.words]}, canonical


def read_as_hypernetwork(header: Message, parts: Sequence[bytes]) -> Answer:
    """Read a hypernetwork, as `read_as_words` reads words."""
    try:
        network = read_hypernetwork(parts[0], STEM)
    except VocableError:
        if _holds_words(parts[0]):
            raise _misplaced("hypernetwork", "embedding") from None
        raise
    facts = {
        "step": network.step,
        "model": network.model[:MAX_TEXT],
        "model_hash": network.model_hash[:MAX_TEXT],
        "family": network.family,
        "sizes": list(network.sizes),
        "activation": network.activation,
        "layer_norm": network.layer_norm,
        "widths": sorted(network.widths),
        "parameters": network.parameters,
    }
    return {"flavour": network.flavour, "contents": [facts]}, [encode_hypernetwork(network)]


def describe(header: Message, parts: Sequence[bytes]) -> Answer:
    """Say all that is known of a file called `stem`: `words`, `hypernetwork`, or `optimizer`."""
    blank: Message = {"words": [], "hypernetwork": None, "optimizer": None}
    if is_hypernetwork(parts[0]):
        found = hypernetwork_facts.describe(read_hypernetwork(parts[0], header["stem"]))
        return {**blank, "flavour": found["flavour"], "hypernetwork": found}, []
    try:
        return {**blank, **describe_file(parts[0], header["stem"])}, []
    except VocableError:
        optimizer = _find_optimizer(parts[0])
        if optimizer is None:
            raise
        return {**blank, "flavour": "webui .optim", "optimizer": optimizer}, []


def convert_file(header: Message, parts: Sequence[bytes]) -> Answer:
    """Convert the word `word` (or the only one) of a file, or its hypernetwork, to `format`, calling it `name`.

    Parts are the file, then the second half of a pair when `has_second`, then a picture when `picture` names one;
    those of the answer are the files to write, each with the ending of its name in `suffixes`.
    """
    rest = list(parts)
    if is_hypernetwork(rest[0]):
        return _convert_hypernetwork(header, rest[0])
    embedding = _choose(rest.pop(0), header["stem"], header["word"])
    if header["has_second"]:
        embedding = join_halves(embedding, _choose(rest.pop(0), header["stem"], ""))
    embedding = replace(embedding, name=header["name"] or embedding.name)
    picture = decode_picture(rest.pop(0), Path(header["picture"])).image if header["picture"] else None
    converted = convert(embedding, header["format"], picture=picture)
    written = [data for _, data in converted.files]
    rows, width = embedding.vectors.shape
    values = {"kind": "embedding", "vectors": rows, "width": width, "notes": list(converted.notes)}
    return {**values, "suffixes": [suffix for suffix, _ in converted.files]}, written


def parameters(header: Message, parts: Sequence[bytes]) -> Answer:
    """Find the text that tells how a picture was made; `text` is None when there is none."""
    return {"text": read_parameters(parts[0])}, []


OPERATIONS: Mapping[str, Callable[[Message, Sequence[bytes]], Answer]] = {
    "read words": read_as_words,
    "read hypernetwork": read_as_hypernetwork,
    "describe": describe,
    "convert": convert_file,
    "parameters": parameters,
}


def _facts(word: Embedding) -> Message:
    rows, width = word.vectors.shape
    return {
        "name": "" if word.name == STEM else word.name,
        "trigger": word.trigger[:MAX_TEXT],
        "vectors": rows,
        "width": width,
        "split": word.split,
        "family": word.family,
        "step": word.step,
        "model": word.model[:MAX_TEXT],
        "model_hash": word.model_hash[:MAX_TEXT],
    }


def _find_optimizer(data: bytes) -> Message | None:
    try:
        return describe_optimizer(data)
    except VocableError:
        return None


def _convert_hypernetwork(header: Message, data: bytes) -> Answer:
    network = read_hypernetwork(data, header["name"])
    format = next((known for known in get_args(HypernetworkFormat) if known == header["format"]), None)
    if format is None:
        title = f"A hypernetwork cannot be written as {header['format']}."
        hint = f"Formats of hypernetworks: {', '.join(get_args(HypernetworkFormat))}."
        raise VocableError("hypernetwork.unsupported", title, hint)
    converted = convert_hypernetwork(network, format)
    values = {"kind": "hypernetwork", "vectors": 0, "width": 0, "notes": list(converted.notes)}
    return {**values, "suffixes": [suffix for suffix, _ in converted.files]}, [data for _, data in converted.files]


def _holds_words(data: bytes) -> bool:
    try:
        return bool(read_words(data, STEM).words)
    except VocableError:
        return False


def _misplaced(expected: str, found: str) -> VocableError:
    """The error of a good file of one kind in the folder of the other."""
    article = "a" if found == "hypernetwork" else "an"
    return VocableError(
        f"{expected}.misplaced",
        f"The file holds {article} {found}, not what this folder is for.",
        f"Move it to {found}s/.",
    )


def _choose(data: bytes, stem: str, name: str) -> Embedding:
    """The word called `name`, or the only one."""
    words = read_words(data, stem).words
    chosen = [word for word in words if not name or word.name.casefold() == name.casefold()]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(word.name for word in words[:20])
    if chosen:
        raise VocableError("embedding.several", f"The file holds {len(words)} words: {names}.", "Say which one.")
    raise VocableError("embedding.absent", f"The file holds no word '{name}'.", f"It holds: {names}.")
