"""One look through a folder tree: every entry that may matter with what the file system says of it.

Runs in a thread of the supervisor. Opens no file and follows no symbolic link, so nothing in the folder can block or
mislead it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

_IGNORED = re.compile(
    r"""^( \..* | ~.* | .*~                                    # hidden files, office locks, editors' backups
         | .*\.(tmp|temp|part|partial|filepart|crdownload|download|opdownload)   # files on their way
         | @eaDir | \#recycle | \$RECYCLE\.BIN | lost\+found   # folders of file servers and file systems
         | thumbs\.db | desktop\.ini | Icon\r
        )$""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


class Stamp(NamedTuple):
    """What a file's content depends on; equal stamps mean the same content."""

    kind: Literal["file", "symlink", "special"]
    """special: pipe, socket or device."""
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


@dataclass(frozen=True)
class Listing:
    """The outcome of one look."""

    files: dict[Path, Stamp] = field(default_factory=dict)
    """Everything but folders, sub-folders' content included."""
    faults: dict[Path, str] = field(default_factory=dict)
    """Folders that could not be read, with the system's reason. What is in them is not known."""
    missing: bool = False
    """The folder itself is not there."""


def is_ignored(name: str) -> bool:
    """Say whether a file or folder of this name is somebody's temporary or bookkeeping."""
    return _IGNORED.match(name) is not None


def scan(root: Path, depth: int | None = None) -> Listing:
    """Look through `root` and its sub-folders. Costs about 5 ms for each thousand entries on a local disk.

    Args:
        depth: how many levels of folders are looked into, `root` being the first; None for all.
    """
    listing = Listing(missing=not os.path.isdir(root))
    folders = [] if listing.missing else [(str(root), 1)]
    while folders:
        folder, level = folders.pop()
        try:
            with os.scandir(folder) as entries:
                deeper = _take(entries, listing.files)
            if depth is None or level < depth:
                folders += [(path, level + 1) for path in deeper]
        except FileNotFoundError:
            continue  # removed while we looked: its absence is what we report
        except OSError as error:
            listing.faults[Path(folder)] = os.strerror(error.errno or 0)
    return listing


def _take(entries: Iterator[os.DirEntry[str]], files: dict[Path, Stamp]) -> list[str]:
    """Enter the files of one folder into `files` and return its sub-folders."""
    folders = []
    for entry in entries:
        if is_ignored(entry.name):
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            folders.append(entry.path)
        else:
            files[Path(entry.path)] = stamp_of(status)
    return folders


def stamp_of(status: os.stat_result) -> Stamp:
    kind: Literal["file", "symlink", "special"] = "special"
    if stat.S_ISREG(status.st_mode):
        kind = "file"
    elif stat.S_ISLNK(status.st_mode):
        kind = "symlink"
    return Stamp(kind, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
