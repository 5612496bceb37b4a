"""SHA-256 of model files, computed once for each content and kept in the workspace's cache.

Called by the catalog, in the service and in the worker. No torch. Path, size, time of change and inode stand for a
content; a file of gigabytes is read only when the caller can wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from engine.errors import VocableError
from engine.files import write_atomically

SMALL_BYTES = 64 << 20
"""Files up to this size are hashed at once: it takes a tenth of a second at most."""

FOLDER = "models"
"""Inside the cache."""


class Stamp(NamedTuple):
    """Stands for the content of a file."""

    size: int
    mtime_ns: int
    inode: int


def read_stamp(path: Path) -> Stamp:
    """Raises OSError."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def find_hash(path: Path, *, cache: Path | None, wait: bool) -> str:
    """The SHA-256 of a file in 64 hex digits; empty when it is large, not known yet, and the caller does not wait.

    Args:
        cache: folder of the workspace's cache; without one, hashes are known to this process alone.

    Raises:
        OSError: from the file itself; a cache that cannot be read or written is done without.
    """
    stamp = read_stamp(path)
    known = _KNOWN.get((path, stamp)) or _read_kept(path, stamp, cache)
    if not known and (wait or stamp.size <= SMALL_BYTES):
        known = _hash_file(path)
        if stamp.size > SMALL_BYTES:
            _keep(path, stamp, cache, known)
    if known:
        _KNOWN[path, stamp] = known
    return known


_KNOWN: dict[tuple[Path, Stamp], str] = {}


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_kept(path: Path, stamp: Stamp, cache: Path | None) -> str:
    if cache is None:
        return ""
    try:
        kept = json.loads(_entry(path, cache).read_bytes())
        return str(kept["sha256"]) if [*stamp] == kept["stamp"] and len(kept["sha256"]) == 64 else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _keep(path: Path, stamp: Stamp, cache: Path | None, sha256: str) -> None:
    if cache is None:
        return
    kept = {"path": os.fsencode(path).decode("utf-8", "replace"), "stamp": stamp, "sha256": sha256}
    with suppress(VocableError):  # the hash is right without its copy
        write_atomically(_entry(path, cache), json.dumps(kept).encode())


def _entry(path: Path, cache: Path) -> Path:
    return cache / FOLDER / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
