"""Writing that cannot be torn: every file of the program takes its name only when it is whole and on disk.

Used by engine and daemon; no torch. A temporary begins with a dot, so that no watcher picks it up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from engine.errors import VocableError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when a disk, or a user's share of it, is full."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
_under_way: set[str] = set()
"""Temporaries that this process is writing."""


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


def make_folder(folder: Path) -> None:
    """Make `folder` and what it lies in, so that a power cut does not take it away with all that is in it.

    Raises:
        VocableError: `disk.full` or `disk.write`.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise write_error(folder, error) from error


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data`, however little of it the system takes at a time."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def write_atomically(
    path: Path,
    data: bytes,
    *,
    verify: Callable[[bytes], None] | None = None,
    durable: bool = True,
    overwrite: bool = True,
) -> None:
    """Write `data` to `path` as a whole or not at all, creating the folder when it is missing.

    Args:
        path: final name; an existing file keeps its content until the new one is on disk.
        data: whole content.
        verify: called with the bytes read back from the temporary; whatever it raises leaves `path` untouched.
        durable: wait until the disk has it. Without, a power cut may leave a torn file: for caches that check what
            they find.
        overwrite: replace an existing file; without, it stays as it is, whoever made it and when.

    Raises:
        VocableError: `disk.full` or `disk.write` with the path and the system's reason; `file.exists`.
    """
    short = os.fsencode(path.name)[:180].decode(errors="ignore")  # names are limited in bytes, not in characters
    temporary = path.with_name(f".{short}.{secrets.token_hex(4)}.tmp")
    _under_way.add(str(temporary))
    try:
        make_folder(path.parent)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(handle, data)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        if verify is not None:
            verify(temporary.read_bytes())
        if overwrite:
            os.replace(temporary, path)
        else:
            put_in_place(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # where nothing could be written, there may be no folder to look into
            temporary.unlink()
        _under_way.discard(str(temporary))


def remove_remains(folder: Path) -> list[Path]:
    """Remove the temporaries that killed writers left in `folder`, and return them.

    What this process is writing stays; no other may write there meanwhile. A folder that is not there, or cannot be
    read, has none.
    """
    removed = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_temporary = _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            if is_temporary and entry.path not in _under_way:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
                    removed.append(Path(entry.path))
    return removed


def put_in_place(file: Path, path: Path) -> None:
    """Give a file a name that nothing has; its old one may remain. Raises OSError, VocableError `file.exists`."""
    try:
        os.link(file, path)
    except FileExistsError:
        hint = "Choose another name, or ask for it to be replaced."
        raise VocableError("file.exists", f"There is a file {path} already.", hint) from None
    except OSError:  # a file system without hard links: look, then rename
        if os.path.lexists(path):
            raise VocableError("file.exists", f"There is a file {path} already.", "Choose another name.") from None
        os.replace(file, path)


def append(path: Path, data: bytes) -> None:
    """Append `data` as a whole, creating file and folder when missing; what a full disk cut short is taken back.

    Raises:
        VocableError: `disk.full` or `disk.write`.
    """
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(handle).st_size
            try:
                write_all(handle, data)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error


def sync(path: Path) -> None:
    """Have a file that was appended to survive a power cut; one that is not there is no error.

    Raises:
        VocableError: `disk.full` or `disk.write`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> VocableError:
    """Turn the system's refusal to write `path` into a sentence a user can act on."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in NO_ROOM:
        return VocableError(
            "disk.full", f"There is no room to write {path} ({reason}).", "Free some space and try again."
        )
    return VocableError(
        "disk.write", f"{path} could not be written ({reason}).", "Check the folder and its permissions."
    )
