"""Chunks of PNG files: the text with a key, and the others for whoever decodes the picture.

Called by `read` and `images` in the inspector. No torch and no Pillow: chunks are walked with their lengths and
checksums, and only those of the wanted key are unpacked, within a limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from engine.errors import VocableError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_TEXT = 16 << 20
"""Longest value of a chunk that is unpacked, in bytes."""

_MAX_CHUNKS = 1 << 16


def find_text(data: bytes, key: str) -> bytes | None:
    """The value of the one text chunk (tEXt, zTXt or iTXt) with this key; None when there is none.

    Raises:
        VocableError: `embedding.unreadable` when the file is damaged, goes on behind its end, or has the key twice.
    """
    found: bytes | None = None
    prefix = key.encode("latin-1") + b"\0"
    for kind, content in walk_chunks(data):
        if kind in _READERS and content[: len(prefix)] == prefix:
            if found is not None:
                raise _broken(f"it holds the chunk {key} twice")
            found = _READERS[kind](bytes(content[len(prefix) :]))
    return found


def walk_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kinds and contents of all chunks, lengths and checksums checked on the way.

    Raises:
        VocableError: `embedding.unreadable` when the file is damaged or goes on behind its end.
    """
    view = memoryview(data)
    position = len(SIGNATURE)
    for number in range(_MAX_CHUNKS):
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            raise _broken("it is cut short")
        kind = bytes(view[position + 4 : position + 8])
        if number == 0 and kind != b"IHDR":
            raise _broken("it does not begin with a header")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise _broken("a chunk's checksum is wrong")
        yield kind, view[position + 8 : end - 4]
        if kind == b"IEND":
            if end != len(data):
                raise _broken("something is appended to it")
            return
        position = end
    raise _broken(f"it has more than {_MAX_CHUNKS} chunks")


def encode_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def _read_plain(value: bytes) -> bytes:
    if len(value) > MAX_TEXT:
        raise _broken(f"a text chunk is longer than {MAX_TEXT >> 20} MiB")
    return value


def _read_compressed(value: bytes) -> bytes:
    if value[:1] != b"\0":
        raise _broken("a text chunk is packed in an unknown way")
    return _inflate(value[1:])


def _read_international(value: bytes) -> bytes:
    flags, parts = value[:2], value[2:].split(b"\0", 2)
    if len(parts) != 3 or flags not in (b"\0\0", b"\1\0"):
        raise _broken("a text chunk is malformed")
    return _inflate(parts[2]) if flags == b"\1\0" else _read_plain(parts[2])


def _inflate(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_TEXT + 1)
    except zlib.error:
        raise _broken("a text chunk does not unpack") from None
    if not unpacker.eof and len(text) <= MAX_TEXT:
        raise _broken("a text chunk is cut short")
    return _read_plain(text)


_READERS = {b"tEXt": _read_plain, b"zTXt": _read_compressed, b"iTXt": _read_international}


def _broken(problem: str) -> VocableError:
    hint = "Copy the picture again from where it was made; converting or editing one loses its word."
    return VocableError("embedding.unreadable", f"The PNG file cannot be read: {problem}.", hint)
