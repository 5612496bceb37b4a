"""Writing that cannot be torn: every file of the program takes its name only when it is whole and on disk.

Used by engine and daemon; no torch. A temporary begins with a dot, so that no watcher picks it up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from engine.errors import VocableError


def current_umask() -> int:
    """The process's umask. Reading it means setting it for a moment; call this once at start-up."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes, *, verify: Callable[[bytes], None] | None = None) -> None:
    """Write `data` to `path` as a whole or not at all, creating the folder when it is missing.

    Args:
        path: final name; an existing file keeps its content until the new one is on disk.
        data: whole content.
        verify: called with the bytes read back from the temporary; whatever it raises leaves `path` untouched.

    Raises:
        VocableError: `disk.full` or `disk.write` with the path and the system's reason.
    """
    temporary = path.with_name(f".{path.name[:180]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if verify is not None:
            verify(temporary.read_bytes())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # where nothing could be written, there may be no folder to look into
            temporary.unlink()


def write_error(path: Path, error: OSError) -> VocableError:
    """Turn the system's refusal to write `path` into a sentence a user can act on."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VocableError(
            "disk.full", f"There is no room to write {path} ({reason}).", "Free some space and try again."
        )
    return VocableError(
        "disk.write", f"{path} could not be written ({reason}).", "Check the folder and its permissions."
    )
