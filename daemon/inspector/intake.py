"""Takes in the bytes of a foreign file: opened once, read whole, hashed; everything later uses those bytes.

Runs in a thread of the supervisor. Nothing here interprets the content, and no kind of file can make it wait.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from engine.errors import VocableError

MAX_BYTES = 64 << 20
"""Largest file that is read where nobody says otherwise; the reader of each format has its own, lower limit."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True)
class Content:
    data: bytes
    sha256: str
    """64 hex digits."""


def take_in(path: Path, *, follow: bool = False, max_bytes: int = MAX_BYTES) -> Content:
    """Read a file that anybody may have put there.

    Args:
        max_bytes: a larger file is refused unread.
        follow: take what a symbolic link leads to: for paths that the user gave, who has the right to read it.

    Raises:
        VocableError: `file.absent`; `file.kind` for what is no regular file, links included; `file.size`; `file.busy`
            when it changed while it was read; `file.unreadable` with the system's reason.
    """
    try:
        handle = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        if not follow:
            raise _unreadable(error) from None
        raise VocableError("file.absent", f"There is no file {path}.", "Check the path.") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _wrong_kind() from None
        raise _unreadable(error) from None
    try:
        data = _read(handle, max_bytes)
    except OSError as error:
        raise _unreadable(error) from None
    finally:
        os.close(handle)
    return Content(data, hashlib.sha256(data).hexdigest())


def _read(handle: int, max_bytes: int) -> bytes:
    before = os.fstat(handle)
    if not stat.S_ISREG(before.st_mode):
        raise _wrong_kind()
    if before.st_size > max_bytes:
        title = f"The file is {-(-before.st_size >> 20)} MiB large; at most {max_bytes >> 20} are read."
        hint = "What belongs here is smaller. A hypernetwork belongs into hypernetworks/, a base model into models/."
        raise VocableError("file.size", title, hint)
    with os.fdopen(handle, "rb", closefd=False) as file:
        data = file.read(max_bytes + 1)
    after = os.fstat(handle)
    if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (len(data), after.st_mtime_ns, after.st_ctime_ns):
        raise VocableError("file.busy", "The file is still being written.", "It is read again by itself.")
    return data


def _wrong_kind() -> VocableError:
    return VocableError(
        "file.kind", "This is a folder, link, pipe or device, not a file.", "Put the file itself there."
    )


def _unreadable(error: OSError) -> VocableError:
    reason = os.strerror(error.errno or 0)
    return VocableError("file.unreadable", f"The file cannot be read ({reason}).", "Check its permissions.")
