"""Opens the history's file, also a damaged one: that goes to quarantine, and a new file takes over what can be read.

Called by the history in its one thread. The invariant: a damaged file is never deleted, and its place is taken only by
a file that is whole and on disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.losses import rebuild_blocks
from daemon.schema import Damaged, connect, prepare
from engine.files import make_folder, sync, sync_folder

_TABLES = {
    "runs": ("rowid",),
    "losses": ("run", "step"),
    "loss_blocks": ("run", "size", "block"),
    "previews": ("rowid",),
    "requests": ("rowid",),
}
"""With the columns in whose order a table lies on disk."""


def open_database(path: Path, *, now: float) -> tuple[sqlite3.Connection, str]:
    """Open or create the file; also a sentence for people when it was damaged.

    Raises:
        VocableError: see `daemon.schema.prepare`, and `disk.*`.
        sqlite3.Error, OSError: the disk does not do it.
    """
    recovered = _recovered(path)
    if recovered.exists() and not path.exists():
        os.replace(recovered, path)  # a kill came between the two moves of a rescue
    connection = connect(path)
    try:
        try:
            prepare(connection, path, now=now)
            return connection, ""
        except Damaged as error:
            notice = _rescue(connection, path, now, str(error))
        connection = connect(path)
        prepare(connection, path, now=now)
        return connection, notice
    except BaseException:
        connection.close()
        raise


def _rescue(damaged: sqlite3.Connection, path: Path, now: float, reason: str) -> str:
    recovered = _recovered(path)
    _remove(recovered)
    try:
        with contextlib.closing(connect(recovered)) as whole:
            prepare(whole, recovered, now=now)
            runs = _take_over(damaged, whole)
    finally:
        damaged.close()
    sync(recovered)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    quarantine = path.parent / "quarantine" / f"{path.stem}-{stamp}-{secrets.token_hex(4)}"
    make_folder(quarantine)
    for name in (f"{path.name}-wal", f"{path.name}-shm", path.name):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path.with_name(name), quarantine / name)
    sync_folder(quarantine)
    os.replace(recovered, path)
    sync_folder(path.parent)
    count = "1 run" if runs == 1 else f"{runs} runs"
    return f"The history was damaged ({reason}) and is kept in {quarantine}; {count} could be taken over from it."


def _take_over(damaged: sqlite3.Connection, whole: sqlite3.Connection) -> int:
    """Copy every row that can be read; the number of runs."""
    whole.execute("PRAGMA foreign_keys = OFF")
    for table, order in _TABLES.items():
        with whole:
            for direction in ("ASC", "DESC"):  # from both ends, up to where the damage is
                places = ", ".join(f"{column} {direction}" for column in order)
                for row in _read(damaged, f"SELECT * FROM {table} ORDER BY {places}"):
                    names, marks = ", ".join(row), ", ".join("?" * len(row))
                    with contextlib.suppress(sqlite3.Error):
                        whole.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
    with whole:
        for table in set(_TABLES) - {"runs"}:
            whole.execute(f"DELETE FROM {table} WHERE run NOT IN (SELECT id FROM runs)")
        rebuild_blocks(whole)
    return int(whole.execute("SELECT COUNT(*) FROM runs").fetchone()[0])


def _read(damaged: sqlite3.Connection, query: str) -> Iterator[dict[str, Any]]:
    """Rows as far as they can be read."""
    with contextlib.suppress(sqlite3.DatabaseError):
        cursor = damaged.execute(query)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))


def _recovered(path: Path) -> Path:
    return path.with_name(f".{path.name}.recovered")


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
