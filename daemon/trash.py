"""Keeps what is about to be replaced or deleted in watched folders, and moves runs there and back.

Called in threads by the queue.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import itertools
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from engine.errors import VocableError
from engine.files import make_folder, put_in_place, sync, sync_folder, write_atomically, write_error


def keep_copy(path: Path, trash: Path) -> None:
    """Put the file at `path`, if there is one, under a second name into `trash`; the same file only once.

    Raises:
        VocableError: `disk.full` or `disk.write`.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(path, error) from error
    kept = _find_place(path, status, trash)
    if kept is None:
        return
    make_folder(trash)
    try:
        os.link(path, kept)
        sync_folder(trash)
    except OSError:
        # Not every file system has links, and trash/ may be a mount of its own.
        write_atomically(kept, _read(path))


def move_away(path: Path, trash: Path) -> None:
    """Move the file at `path` into `trash`; that it is gone already is no error.

    Raises:
        VocableError: `disk.full` or `disk.write`; the file is where it was.
    """
    keep_copy(path, trash)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def take_back(kept: Path, path: Path) -> None:
    """Move a file out of the trash to where it was.

    Raises:
        VocableError: `file.exists` when there is another by now; `disk.full` or `disk.write`.
    """
    write_atomically(path, _read(kept), overwrite=False)
    with contextlib.suppress(OSError):  # it is back; what stays in the trash does no harm
        kept.unlink()


def _find_place(path: Path, status: os.stat_result, trash: Path) -> Path | None:
    """The name for a file in `trash`; None when it lies there already.

    Archives and tools give many files the same time, so that another content may have the name; then the number in it
    counts up.
    """
    for number in itertools.count(status.st_mtime_ns):
        kept = trash / f"{path.stem}-{number}{path.suffix}"
        try:
            if not os.path.lexists(kept):
                return kept
            if kept.is_file() and filecmp.cmp(path, kept, shallow=False):
                return None
        except FileNotFoundError:
            return kept  # it went away meanwhile
        except OSError as error:
            raise write_error(kept, error) from error
    raise AssertionError("there is always a higher number")


def move_file(path: Path, target: Path) -> None:
    """Give a file another name that nothing has.

    Raises:
        VocableError: `file.exists`; `disk.full` or `disk.write`.
    """
    if path == target:
        return
    try:
        put_in_place(path, target)
        path.unlink(missing_ok=True)
        sync_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error


def is_fetchable(folder: Path) -> bool:
    """Whether there is something to move: the folder, or what a move of it that was killed has left."""
    return folder.is_dir() or _leaving(folder).is_dir()


def move_folder(source: Path, destination: Path, stopping: threading.Event) -> None:
    """Move a folder; one that is not there is left at that. Goes on with a move that was killed.

    Args:
        stopping: breaks off a copy when it is set.

    Raises:
        VocableError: `disk.full`, `disk.write` or `service.stopping`; the folder is where it was.
    """
    if not is_fetchable(source):
        return
    make_folder(destination.parent)
    try:
        _rename(source, destination, stopping)
        sync_folder(destination.parent)
        sync_folder(source.parent)
    except OSError as error:
        raise write_error(destination, error) from error


def put_back(folder: Path) -> None:
    """Give a folder its name again that could not be moved away, when even that failed then."""
    if not folder.is_dir() and _leaving(folder).is_dir():
        os.rename(_leaving(folder), folder)


def _rename(source: Path, destination: Path, stopping: threading.Event) -> None:
    """Rename, or carry over where trash/ is a mount of its own.

    A folder that is carried over leaves its name first, in one piece, and the copy takes its own when it is whole and
    on the disk. So whatever is killed, a folder without its name is one on its way, and with a copy that has its name
    it is not needed any more.
    """
    leaving = _leaving(source)
    if source.is_dir():
        try:
            return os.rename(source, destination)
        except OSError as error:
            if error.errno != errno.EXDEV or destination.exists():
                raise
        os.rename(source, leaving)
    if not destination.is_dir():
        try:
            _copy(leaving, destination, stopping)
        except BaseException:
            os.rename(leaving, source)
            raise
    shutil.rmtree(leaving, ignore_errors=True)


def _copy(source: Path, destination: Path, stopping: threading.Event) -> None:
    """Copy a folder, which is on the disk when it takes its name."""
    arriving = destination.with_name(f".{destination.name}.arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    try:
        shutil.copytree(source, arriving, symlinks=True, copy_function=_copier(stopping))
        for folder, _, _ in os.walk(arriving):
            sync_folder(Path(folder))
        os.rename(arriving, destination)
        sync_folder(destination.parent)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def _leaving(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.leaving")


def _copier(stopping: threading.Event) -> Callable[[str, str], object]:
    def copy(source: str, destination: str) -> object:
        if stopping.is_set():
            raise VocableError("service.stopping", "The service is stopping.", "Start it again and repeat this.")
        try:
            shutil.copy2(source, destination, follow_symlinks=False)
            if not os.path.islink(destination):
                sync(Path(destination))
        except OSError as error:
            raise write_error(Path(destination), error) from error
        return destination

    return copy


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise write_error(path, error) from error
