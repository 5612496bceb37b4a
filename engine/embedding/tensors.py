"""The safetensors container, read without trust: the header is checked whole before a number is looked at.

Called by `read` in the inspector and by `write` to make files. No torch. Our own, since the library's reader accepts
headers of 100 MB and a million tensors, and its writer orders the metadata anew each time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import VocableError

MAX_HEADER = 1 << 20
MAX_TENSORS = 64
MAX_ENTRIES = 64
MAX_METADATA = 1 << 18
"""Characters of metadata that are kept, in the order of the file; what would go beyond (a thumbnail, say) is not."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


@dataclass(frozen=True)
class _Span:
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def decode_tensors(data: bytes) -> tuple[dict[str, NDArray[np.floating]], dict[str, str]]:
    """Read a safetensors file: its tensors by name (bfloat16 as float32) and its metadata.

    Raises:
        VocableError: `embedding.unreadable` for anything that the format or our limits do not allow.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > MAX_HEADER or 8 + length > len(data):
        raise _broken(f"its header is said to be {length} bytes long")
    header = _read_header(data[8 : 8 + length])
    metadata = _read_metadata(header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        raise _broken(f"it holds {len(header)} tensors, more than {MAX_TENSORS}")
    spans = sorted((_read_span(name, entry) for name, entry in header.items()), key=lambda span: (span.start, span.end))
    body = memoryview(data)[8 + length :]
    reached = 0
    for span in spans:
        if span.start != reached:
            raise _broken("its tensors overlap or leave gaps")
        reached = span.end
    if reached != len(body):
        raise _broken(f"its tensors end at byte {reached} of {len(body)}")
    return {span.name: _read_tensor(span, body) for span in spans}, metadata


def encode_tensors(tensors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """Write float32 tensors in the order given; the same input gives the same bytes, always."""
    description: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + 4 * values.size
        description[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, end]}
    header = json.dumps(description, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    body = b"".join(np.ascontiguousarray(values, dtype="<f4").tobytes() for values in tensors.values())
    return len(header).to_bytes(8, "little") + header + body


def _read_header(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _broken("its header is not a JSON object")
    try:
        header: dict[str, Any] = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _broken(f"its header is not JSON ({error})") from None
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _read_metadata(entries: Any) -> dict[str, str]:
    if not isinstance(entries, dict) or len(entries) > MAX_ENTRIES:
        raise _broken(f"its metadata is not an object of at most {MAX_ENTRIES} entries")
    if not all(isinstance(value, str) for value in entries.values()):
        raise _broken("its metadata holds something else than text")
    kept: dict[str, str] = {}
    room = MAX_METADATA
    for key, value in entries.items():
        if len(key) + len(value) <= room and not _SURROGATE.search(key + value):
            kept[key] = value
            room -= len(key) + len(value)
    return kept


def _read_span(name: str, entry: Any) -> _Span:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken("a tensor's description has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise _broken(f"a tensor is of type {str(dtype)[:20]!r}, not one of {', '.join(_SIZES)}")
    if not _counts(shape) or not 1 <= len(shape) <= 2 or not _counts(offsets) or len(offsets) != 2:
        raise _broken("a tensor's shape or offsets are not what they should be")
    if prod(shape) == 0 or offsets[1] - offsets[0] != prod(shape) * _SIZES[dtype]:
        raise _broken("a tensor's shape does not match its bytes")
    return _Span(name, dtype, tuple(shape), offsets[0], offsets[1])


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 32 for value in values)


def _read_tensor(span: _Span, body: memoryview) -> NDArray[np.floating]:
    raw = body[span.start : span.end]
    values: NDArray[np.floating]
    if span.dtype == "BF16":
        # The upper half of a float32.
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, f"<f{_SIZES[span.dtype]}")
    return values.reshape(span.shape)


def _broken(problem: str) -> VocableError:
    hint = "Copy or download the file again; if it stays so, it is not a safetensors file of an embedding."
    return VocableError("embedding.unreadable", f"The file cannot be read as safetensors: {problem}.", hint)
