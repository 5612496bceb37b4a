"""Keeps what is about to be replaced in the embeddings folder. Called in threads by the queue."""

from __future__ import annotations

import os
from pathlib import Path

from engine.files import sync_folder, write_atomically, write_error


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise write_error(path, error) from error
