"""Keeps what is about to be replaced in the embeddings folder, and moves runs there and back.

Called in threads by the queue.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from engine.files import make_folder, sync_folder, write_atomically, write_error


def keep_copy(path: Path, trash: Path) -> None:
    """Put the file at `path`, if there is one, under a second name into `trash`; the same file only once.

    Raises:
        VocableError: `disk.full` or `disk.write`.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    kept = trash / f"{path.stem}-{status.st_mtime_ns}{path.suffix}"
    if kept.exists():
        return
    try:
        os.link(path, kept)
        sync_folder(trash)
    except OSError:
        # Not every file system has links, and trash/ may be a mount of its own.
        write_atomically(kept, _read(path))


def move_away(path: Path, trash: Path) -> None:
    """Move the file at `path` into `trash`; that it is gone already is no error."""
    keep_copy(path, trash)
    path.unlink(missing_ok=True)


def move_folder(source: Path, destination: Path) -> None:
    """Move a folder; one that is not there is left at that.

    Raises:
        VocableError: `disk.full` or `disk.write`; the folder is where it was.
    """
    if not source.is_dir():
        return
    make_folder(destination.parent)
    try:
        _rename(source, destination)
        sync_folder(destination.parent)
        sync_folder(source.parent)
    except OSError as error:
        raise write_error(destination, error) from error


def _rename(source: Path, destination: Path) -> None:
    """Rename, or copy where trash/ is a mount of its own; the copy takes its name only when it is whole."""
    try:
        os.rename(source, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = destination.with_name(f".{destination.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            shutil.copytree(source, temporary, symlinks=True)
            os.rename(temporary, destination)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        os.sync()  # before the only other copy goes
        shutil.rmtree(source, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise write_error(path, error) from error
