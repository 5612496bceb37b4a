"""The word that a picture carries: base64 of JSON, in AUTOMATIC1111's layout of 2022 that every later tool kept.

Written by `overlay` and `engine.sampling.png`, read by `read` in the inspector. No torch. The keys are those of its
`.pt` files; a tensor is an object with the one key TORCHTENSOR. Numbers are written so that float32 comes back bit
for bit.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from engine.embedding.stored import StoredTensor, whole_array
from engine.embedding.vectors import MAX_VECTORS, MAX_WIDTH, Embedding
from engine.errors import VocableError

KEY = "sd-ti-embedding"
"""Keyword of the PNG text chunk."""

_STAR_ID = 265
"""CLIP's token of a lone `*`, which the layout names as the word's own."""

_MAX_DEPTH = 8
_MAX_BRACKETS = 4096
_MAX_STRINGS = 4096
_MAX_COMMAS = 2 * MAX_VECTORS * MAX_WIDTH

_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def webui_fields(embedding: Embedding, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What webui's files and payloads say of a word, in its order; a word for two encoders is its two tensors alone.

    Args:
        tensors: the vectors of each of `embedding.encoders()` in the form that the container has for them.
    """
    if embedding.split:
        return dict(tensors)
    return {
        "string_to_token": {"*": _STAR_ID},
        "string_to_param": {"*": next(iter(tensors.values()))},
        "name": embedding.name,
        "step": embedding.step,
        "sd_checkpoint": embedding.model_hash or None,
        "sd_checkpoint_name": embedding.model or None,
    }


def payload_json(embedding: Embedding) -> bytes:
    """Write an embedding as JSON; other programs use the name in it as the word to prompt with."""
    tensors = {key: {"TORCHTENSOR": rows.tolist()} for key, rows in embedding.encoders().items()}
    return json.dumps(webui_fields(embedding, tensors), allow_nan=False).encode()


def encode_payload(embedding: Embedding) -> str:
    """Write an embedding as the value of the chunk."""
    return base64.b64encode(payload_json(embedding)).decode("ascii")


def decode_payload(value: bytes) -> dict[str, Any]:
    """Read the value of the chunk: what `parse_payload` gives.

    Raises:
        VocableError: `embedding.unreadable`.
    """
    try:
        return parse_payload(base64.b64decode(value, validate=True))
    except binascii.Error:
        raise _broken("it is not base64") from None


def parse_payload(text: bytes) -> dict[str, Any]:
    """Read the JSON of a payload; tensors in it come as `StoredTensor`.

    Raises:
        VocableError: `embedding.unreadable`.
    """
    _check_nesting(text)
    try:
        values = json.loads(
            text.decode("utf-8"), parse_constant=_refuse, parse_int=_parse_int, object_hook=_decode_object
        )
    except (ValueError, RecursionError) as error:
        raise _broken(f"it is not JSON ({ascii(str(error))[1:81]})") from None
    if not isinstance(values, dict):
        raise _broken("it is not a JSON object")
    return values


def _check_nesting(text: bytes) -> None:
    """Refuse JSON that would take far more memory or stack to parse than an embedding does."""
    if text.count(b",") > _MAX_COMMAS:
        raise _broken("it holds more numbers than an embedding has")
    depth = brackets = strings = 0
    for match in _BRACKETS.finditer(text):
        sign = match.group()
        if sign in b"[{":
            depth, brackets = depth + 1, brackets + 1
        elif sign in b"]}":
            depth -= 1
        else:
            strings += 1
        if depth > _MAX_DEPTH or brackets > _MAX_BRACKETS or strings > _MAX_STRINGS:
            raise _broken("it is nested more, or holds more texts, than an embedding")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _parse_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number has more than 20 digits")
    return int(digits)


def _decode_object(values: dict[str, Any]) -> Any:
    return _tensor(values["TORCHTENSOR"]) if "TORCHTENSOR" in values else values


def _tensor(rows: Any) -> StoredTensor:
    if not isinstance(rows, list) or not rows:
        raise _broken("it holds no tensor")
    if not isinstance(rows[0], list):
        rows = [rows]
    width = len(rows[0])
    if len(rows) > MAX_VECTORS or not 1 <= width <= MAX_WIDTH:
        raise _broken(f"it holds {len(rows)} x {width} numbers")
    if not all(isinstance(row, list) and len(row) == width for row in rows):
        raise _broken("its vectors are of different lengths")
    if not all(type(number) in (int, float) for row in rows for number in row):
        raise _broken("its vectors hold something else than numbers")
    return whole_array(np.array(rows, dtype=np.float64))


def _broken(problem: str) -> VocableError:
    hint = "Copy the picture again from where it was made."
    return VocableError("embedding.unreadable", f"The word in the picture cannot be read: {problem}.", hint)
