"""The history's SQLite file: its tables, how an older file is brought up to date, and what is refused.

Called by the history in its one thread. Migrations go forwards only; each is one transaction, and before it the file is
copied beside itself, so that an older program can be given its own file back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from pathlib import Path

from engine.errors import VocableError
from engine.files import sync, sync_folder

APPLICATION_ID = 0x566F6361
"""`Voca`, in the file's header."""

KEPT_BACKUPS = 3

MIGRATIONS = (
    f"""
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, recipe TEXT NOT NULL,
        folder TEXT NOT NULL, position REAL NOT NULL, state TEXT NOT NULL, asked TEXT NOT NULL,
        step INTEGER NOT NULL, steps INTEGER NOT NULL, loss REAL, mean_loss REAL, learn_rate REAL,
        prompt TEXT NOT NULL, preview TEXT NOT NULL, preview_step INTEGER NOT NULL, embedding TEXT NOT NULL,
        error TEXT, warnings TEXT NOT NULL,
        restarts INTEGER NOT NULL, created_at REAL NOT NULL, started_at REAL, ended_at REAL
    ) STRICT;
    CREATE TABLE losses (
        run TEXT NOT NULL REFERENCES runs, step INTEGER NOT NULL, loss REAL, rate REAL NOT NULL,
        PRIMARY KEY (run, step)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE loss_blocks (
        run TEXT NOT NULL REFERENCES runs, block INTEGER NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL,
        low REAL NOT NULL, high REAL NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (run, block)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE previews (
        run TEXT NOT NULL REFERENCES runs, step INTEGER NOT NULL, path TEXT NOT NULL, PRIMARY KEY (run, path)
    ) STRICT;
    CREATE TABLE requests (
        key TEXT PRIMARY KEY, digest TEXT NOT NULL, run TEXT NOT NULL REFERENCES runs, created_at REAL NOT NULL
    ) STRICT;
    PRAGMA application_id = {APPLICATION_ID};
    """,
    # Blocks of several sizes, and for each run the finest that is kept: see daemon/losses.py.
    """
    ALTER TABLE runs ADD COLUMN loss_unit INTEGER NOT NULL DEFAULT 1;
    DROP TABLE loss_blocks;
    CREATE TABLE loss_blocks (
        run TEXT NOT NULL REFERENCES runs, size INTEGER NOT NULL, block INTEGER NOT NULL, count INTEGER NOT NULL,
        sum REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (run, size, block)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO loss_blocks
        SELECT run, 16, (step - 1) / 16, COUNT(*), SUM(loss), MIN(loss), MAX(loss), MAX(step)
        FROM losses WHERE loss IS NOT NULL GROUP BY run, (step - 1) / 16;
    INSERT INTO loss_blocks
        SELECT run, 256, block / 16, SUM(count), SUM(sum), MIN(low), MAX(high), MAX(last)
        FROM loss_blocks WHERE size = 16 GROUP BY run, block / 16;
    """,
)
"""Number n (from 0) makes a file of version n + 1 of one of version n; version 0 is an empty file."""

VERSION = len(MIGRATIONS)


class Damaged(Exception):
    """The file is no sound database. Tells people what SQLite found."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for this process alone; it is created when there is none."""
    connection = sqlite3.connect(path, timeout=2)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def prepare(connection: sqlite3.Connection, path: Path, *, now: float) -> None:
    """Check the file, bring its tables up to date, and set how it is written.

    Args:
        now: seconds since 1970, for the names of backups.

    Raises:
        VocableError: `history.newer`, `history.foreign`, `history.locked`; the file is left as it is.
        Damaged: the file is not sound.
        sqlite3.Error, OSError: the disk does not do it; the file is of its old or its new version.
    """
    try:
        _prepare(connection, path, now)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Damaged(str(error)) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            title = f"The history {path} is open in another program ({error})."
            raise VocableError("history.locked", title, "Close that program and start the service again.") from error
        raise


def _prepare(connection: sqlite3.Connection, path: Path, now: float) -> None:
    version = _check_header(connection, path)
    _check_sound(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    _remove_remains(path)
    for number in range(version, VERSION):
        if version:
            _back_up(connection, path, number, now)
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
    connection.execute("PRAGMA foreign_keys = ON")


def _check_header(connection: sqlite3.Connection, path: Path) -> int:
    """The file's version; 0 for an empty one."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    is_empty = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
    if application == 0 and version == 0 and is_empty:
        return 0
    if application != APPLICATION_ID:
        raise VocableError("history.foreign", f"{path} is not a history of Vocable.", "Move it away and start again.")
    if version > VERSION:
        own = [backup for backup in _backups(path) if _version_of(backup) <= VERSION]
        older = f", or put {own[-1].name}, from before the upgrade, in its place" if own else ""
        raise VocableError(
            "history.newer",
            f"{path} was written by a newer Vocable (schema {version}; this one knows {VERSION}).",
            f"Install that version again, or use another workspace{older}.",
        )
    return version


def _check_sound(connection: sqlite3.Connection) -> None:
    """Raises Damaged. Takes a tenth of a second for a million losses; a quick check would miss rows out of order."""
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise Damaged(str(found).replace("\n", " "))


def _back_up(connection: sqlite3.Connection, path: Path, version: int, now: float) -> None:
    """Copy the file beside itself and let go of the oldest copies."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    target = path.with_name(f"{path.stem}.v{version}-{stamp}{path.suffix}")
    temporary = path.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        connection.execute("VACUUM INTO ?", (str(temporary),))
        with contextlib.closing(sqlite3.connect(temporary)) as copy:
            _check_sound(copy)
        sync(temporary)
        os.replace(temporary, target)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    for backup in _backups(path)[:-KEPT_BACKUPS]:
        backup.unlink()


def _backups(path: Path) -> list[Path]:
    """Oldest first."""
    found = path.parent.glob(f"{path.stem}.v*-*{path.suffix}")
    return sorted(found, key=lambda backup: (_version_of(backup), backup.name))


def _version_of(backup: Path) -> int:
    digits = backup.name.split(".v", 1)[1].partition("-")[0]
    return int(digits) if digits.isdecimal() else VERSION + 1


def _remove_remains(path: Path) -> None:
    """Backups that a kill cut short."""
    for remains in path.parent.glob(f".{path.stem}.v*.tmp*"):
        remains.unlink()
