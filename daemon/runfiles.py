"""The files of a run's folder that clients may see: which there are, and one opened without leaving the folder.

Called in threads by the API. The invariant: no name, and no link that somebody put there, leads out of the folder.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from daemon.protocol.runs import FileKind, RunFile
from engine.errors import VocableError
from engine.text import escape

MAX_FILES = 10_000
"""Files that are listed at most, the newest ones."""

KINDS: dict[str, FileKind] = {
    "embeddings": "copy",
    "hypernetworks": "copy",
    "images": "preview",
    "image_embeddings": "carrier",
    "textual_inversion_loss.csv": "losses",
    "hypernetwork_loss.csv": "losses",
    "log.txt": "log",
    "recipe.toml": "recipe",
    "settings.json": "settings",
}
"""What lies in the folder, by the first part of the name; checkpoints and what others put there are not shown."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def list_files(folder: Path) -> list[RunFile]:
    """The files, oldest first; a folder that is not there (yet) has none.

    Left out are links, hidden files, and names that cannot be shown as they are.
    """
    found = [file for name, kind in KINDS.items() for file in _find(folder, name, kind)]
    found.sort(key=lambda file: (file.modified_at, file.name))
    return found[-MAX_FILES:]


def list_previews(folder: Path, name: str) -> list[tuple[int, str]]:
    """Step and path of each preview of the run called `name`, in the order in which they were made."""
    pattern = re.compile(rf"images/{re.escape(name)}-(\d+)(?:-(\d+))?\.png")
    found = ((pattern.fullmatch(file.name), file.path) for file in _find(folder, "images", "preview"))
    numbered = sorted((int(match[1]), int(match[2] or 1), path) for match, path in found if match)
    return [(step, path) for step, _, path in numbered]


def open_file(folder: Path, name: str) -> int:
    """A descriptor of one file, by its name relative to the folder.

    Raises:
        VocableError: `file.absent`; `file.kind` for what is no regular file; `file.unreadable`.
    """
    parts = name.split("/")
    if (
        parts[0] not in KINDS
        or len(parts) > 2
        or "\0" in name
        or any(part.startswith(".") or not part for part in parts)
    ):
        raise _absent(name)
    try:
        handle = _open_below(folder, parts)
    except (FileNotFoundError, NotADirectoryError):
        raise _absent(name) from None
    except OSError as error:
        title = f"The file '{escape(name, 200)}' cannot be read ({error.strerror})."
        raise VocableError("file.unreadable", title, "Check its permissions; links are not followed.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise VocableError("file.kind", f"'{escape(name, 200)}' is no file.", "List the run's files.")
    return handle


def _open_below(folder: Path, parts: list[str]) -> int:
    """Open step by step, so that no link among the steps is followed."""
    place = os.open(folder, _FOLDER)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=place)
            os.close(place)
            place = inner
        return os.open(parts[-1], _FILE, dir_fd=place)
    finally:
        os.close(place)


def _find(folder: Path, name: str, kind: FileKind) -> Iterator[RunFile]:
    path = folder / name
    try:
        status = path.lstat()
        entries = [path / inner for inner in os.listdir(path)] if stat.S_ISDIR(status.st_mode) else [path]
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.lstat()
        except OSError:
            continue  # it went away meanwhile
        shown = entry.relative_to(folder).as_posix()
        if stat.S_ISREG(status.st_mode) and not entry.name.startswith(".") and escape(shown) == shown:
            yield RunFile(
                name=shown, kind=kind, path=str(entry), size=status.st_size, modified_at=status.st_mtime_ns / 1e9
            )


def _absent(name: str) -> VocableError:
    return VocableError("file.absent", f"The run has no file '{escape(name, 200)}'.", "List the run's files.")
