"""Questions to a child of the inspector and its answers: a JSON header with what is small, then raw bytes.

A frame is 4 bytes of length (big-endian), so many bytes of UTF-8 JSON, and the parts whose lengths the header's
`parts` tells. Both sides use this; neither trusts the other's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

MAX_HEADER = 16 << 20
"""Longest header in bytes."""

_PREFIX = 4

Message = dict[str, Any]


class FrameError(Exception):
    """What came is no frame; the text says why."""


def pack(header: Message, parts: Sequence[bytes] = ()) -> list[bytes]:
    """Make a frame, as pieces to be sent one after the other."""
    text = json.dumps({**header, "parts": [len(part) for part in parts]}, separators=(",", ":"), allow_nan=False)
    data = text.encode("utf-8", "surrogatepass")
    return [len(data).to_bytes(_PREFIX, "big") + data, *parts]


def unpack(data: bytes | bytearray) -> tuple[Message, list[bytes]]:
    """Take a frame apart that fills `data` exactly. Raises FrameError."""
    end = _PREFIX + _length(bytes(data[:_PREFIX]))
    header = _parse_header(bytes(data[_PREFIX:end]))
    lengths = _part_lengths(header)
    if end + sum(lengths) != len(data):
        raise FrameError(f"{len(data)} bytes came, {end + sum(lengths)} were told")
    parts, view = [], memoryview(data)  # slices of the bytes themselves would be copied twice
    for length in lengths:
        parts.append(bytes(view[end : end + length]))
        end += length
    return header, parts


def read_frame(stream: BinaryIO) -> tuple[Message, list[bytes]]:
    """Read one frame from a blocking stream. Raises FrameError."""
    header = _parse_header(_read(stream, _length(_read(stream, _PREFIX))))
    return header, [_read(stream, length) for length in _part_lengths(header)]


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise FrameError(f"the stream ended after {len(data)} of {length} bytes")
    return data


def _length(prefix: bytes) -> int:
    length = int.from_bytes(prefix, "big")
    if len(prefix) != _PREFIX or length > MAX_HEADER:
        raise FrameError(f"a header claims {length} bytes")
    return length


def _parse_header(data: bytes) -> Message:
    try:
        header = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a header of {len(data)} bytes is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise FrameError("a header is no JSON object")
    return header


def _part_lengths(header: Message) -> list[int]:
    lengths = header.pop("parts", None)
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise FrameError("a header does not tell its parts")
    return lengths
