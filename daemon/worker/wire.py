"""Messages between supervisor and worker: JSON objects, each behind its length, over an inherited socketpair.

Both sides use the same `encode` and `Decoder`; neither touches a socket, so the supervisor feeds the decoder from
asyncio and the worker from a thread. A frame is 4 bytes of length (big-endian) and that many bytes of UTF-8 JSON.
"""

from __future__ import annotations

import json
from typing import Any

MAX_MESSAGE = 16 << 20
"""Longest message in bytes, without its length prefix."""

_PREFIX = 4

Message = dict[str, Any]


class WireError(Exception):
    """What came over the wire is no message, or what should go over it is too long; the text says which."""


def encode(message: Message) -> bytes:
    """Make a frame. Raises WireError when it is longer than `MAX_MESSAGE` or holds what JSON cannot (NaN, a path)."""
    try:
        data = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise WireError(f"a message cannot be written as JSON ({error})") from error
    if len(data) > MAX_MESSAGE:
        raise WireError(f"a message of {len(data)} bytes is longer than the {MAX_MESSAGE} that are allowed")
    return len(data).to_bytes(_PREFIX, "big") + data


class Decoder:
    """Cuts a stream of bytes into messages. After a WireError the stream is of no further use."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes as they came and return the messages that are complete with them, in order.

        Raises:
            WireError: a length above `MAX_MESSAGE` (noticed before anything is kept), or no JSON object.
        """
        self._buffer += data
        messages = []
        while (frame := self._next_frame()) is not None:
            messages.append(_parse(frame))
        return messages

    def finish(self) -> None:
        """Say that the stream ended. Raises WireError when it ended inside a message."""
        if self._buffer:
            raise WireError(f"the stream ended inside a message, after {len(self._buffer)} bytes of it")

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < _PREFIX:
            return None
        length = int.from_bytes(self._buffer[:_PREFIX], "big")
        if length > MAX_MESSAGE:
            raise WireError(f"a message claims {length} bytes; at most {MAX_MESSAGE} are allowed")
        end = _PREFIX + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_PREFIX:end])
        del self._buffer[:end]
        return frame


def _parse(frame: bytes) -> Message:
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a message of {len(frame)} bytes is not JSON ({error})") from error
    if not isinstance(message, dict):
        raise WireError(f"a message is a JSON {type(message).__name__}, not an object")
    return message
