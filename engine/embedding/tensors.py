"""The safetensors container, read without trust: the header is checked whole before a number is looked at.

Called by `read` in the inspector and by `write` to make files. No torch. Our own, since the library's reader accepts
headers of 100 MB and a million tensors, and its writer orders the metadata anew each time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedding.archive import Data
from engine.embedding.stored import MAX_RANK, Storage, StoredTensor, describe_tensor, row_major
from engine.errors import VocableError

MAX_HEADER = 1 << 20
MAX_TENSORS = 8192
"""Room for a LoRA, which may bring embeddings along; tensors that nobody asks for are never looked at."""

MAX_ENTRIES = 1024
KEPT_ENTRIES = 64
MAX_METADATA = 1 << 18
"""Characters of metadata that are kept, in the order of the file; what would go beyond (a thumbnail, say) is not."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_BITS = {
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32},
    **{"U16": 16, "U8": 8, "BOOL": 8, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8},
}
"""All types of the format."""


def decode_tensors(
    data: Data, *, max_header: int = MAX_HEADER, max_tensors: int = MAX_TENSORS
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read a safetensors file: its tensors by name, in the order of the header, and its metadata.

    Args:
        max_header: largest header in bytes.

    Raises:
        VocableError: `embedding.unreadable` for anything that the format or our limits do not allow.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > max_header or 8 + length > len(data):
        raise _broken(f"its header is said to be {length} bytes long")
    header = _read_header(bytes(data[8 : 8 + length]))
    metadata = _read_metadata(header.pop("__metadata__", {}))
    if len(header) > max_tensors:
        raise _broken(f"it holds {len(header)} tensors, more than {max_tensors}")
    source, begin = memoryview(data) if isinstance(data, bytes) else data, 8 + length
    spans = {name: _read_span(entry) for name, entry in header.items()}
    reached = 0
    for start, end in sorted(span for _, _, span in spans.values()):
        if start != reached:
            raise _broken("its tensors overlap or leave gaps")
        reached = end
    if reached != len(data) - begin:
        raise _broken(f"its tensors end at byte {reached} of {len(data) - begin}")
    return {name: _describe(source, begin, *span) for name, span in spans.items()}, metadata


def encode_tensors(tensors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """Write float32 tensors in the order given; the same input gives the same bytes, always."""
    description: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + 4 * values.size
        description[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, end]}
    header = json.dumps(description, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    parts = (np.ascontiguousarray(values, dtype="<f4").reshape(-1).view(np.uint8).data for values in tensors.values())
    return b"".join([len(header).to_bytes(8, "little"), header, *parts])


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
    for key, value in list(entries.items())[:KEPT_ENTRIES]:
        if len(key) + len(value) <= room and not _SURROGATE.search(key + value):
            kept[key] = value
            room -= len(key) + len(value)
    return kept


def _read_span(entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Type, shape and place of a tensor."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken("a tensor's description has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(f"a tensor is of type {ascii(dtype)[:20]}")
    if not _counts(shape) or len(shape) > MAX_RANK or not _counts(offsets) or len(offsets) != 2:
        raise _broken("a tensor's shape or offsets are not what they should be")
    if (offsets[1] - offsets[0]) * 8 != prod(shape) * _BITS[dtype]:
        raise _broken("a tensor's shape does not match its bytes")
    return dtype, tuple(shape), (offsets[0], offsets[1])


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 32 for value in values)


def _describe(data: Data, begin: int, dtype: str, shape: tuple[int, ...], span: tuple[int, int]) -> StoredTensor:
    storage = Storage(dtype, prod(shape), lambda: data[begin + span[0] : begin + span[1]])
    return describe_tensor(storage, 0, shape, row_major(shape))


def _broken(problem: str) -> VocableError:
    hint = "Copy or download the file again; if it stays so, it is not a safetensors file of an embedding."
    return VocableError("embedding.unreadable", f"The file cannot be read as safetensors: {problem}.", hint)
