"""What outlives the service: runs, their losses and previews, and answered requests, in one SQLite file.

One connection in one thread of one process (versions before 3.51.3 can corrupt a WAL that two connections write), so
the file is locked while the service runs and others ask the service instead. Every commit is on disk when it returns.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from daemon.protocol.runs import LossPoint, RunView
from daemon.runs import Run
from engine.errors import VocableError

APPLICATION_ID = 0x566F6361
"""`Voca`, in the file's header."""
SCHEMA_VERSION = 1

REQUEST_LIFE_S = 7 * 24 * 3600
"""How long an idempotency key is remembered."""

_SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, recipe TEXT NOT NULL,
    folder TEXT NOT NULL, position REAL NOT NULL, state TEXT NOT NULL, asked TEXT NOT NULL,
    step INTEGER NOT NULL, steps INTEGER NOT NULL, loss REAL, mean_loss REAL, learn_rate REAL, prompt TEXT NOT NULL,
    preview TEXT NOT NULL, preview_step INTEGER NOT NULL, embedding TEXT NOT NULL, error TEXT, warnings TEXT NOT NULL,
    restarts INTEGER NOT NULL, created_at REAL NOT NULL, started_at REAL, ended_at REAL
) STRICT;
CREATE TABLE losses (
    run TEXT NOT NULL REFERENCES runs, step INTEGER NOT NULL, loss REAL, rate REAL NOT NULL, PRIMARY KEY (run, step)
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
"""

_VIEW_COLUMNS = (
    *("id", "name", "kind", "model", "folder", "state", "asked", "step", "steps", "loss", "mean_loss", "learn_rate"),
    *("prompt", "preview", "preview_step", "embedding", "restarts", "created_at", "started_at", "ended_at"),
)
_JSON_COLUMNS = ("error", "warnings")
_COLUMNS = (*_VIEW_COLUMNS, *_JSON_COLUMNS, "recipe", "position")

_BLOCK = 256
"""Steps summed up in one row of `loss_blocks`, so that a plot of a million steps reads thousands of rows."""

_SUM_BLOCKS = """
REPLACE INTO loss_blocks
SELECT run, (step - 1) / :size, COUNT(*), SUM(loss), MIN(loss), MAX(loss), MAX(step) FROM losses
WHERE run = :run AND step BETWEEN :first AND :last AND loss IS NOT NULL GROUP BY (step - 1) / :size
"""

Result = TypeVar("Result")


class History:
    """The database. All methods are called on the event loop; the work is done in the one thread, in order.

    Every method raises VocableError: `disk.full` or `history.failed` with SQLite's reason.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._opened: sqlite3.Connection | None = None

    async def open(self, *, now: float) -> list[Run]:
        """Open or create the file and return all runs, oldest first.

        Raises:
            VocableError: `history.newer`, `history.foreign` or `history.failed`; the file is left as it is.
        """
        return await self._call(lambda: self._open(now))

    async def close(self) -> None:
        """Let go of the file; what was called before is done first."""
        await self._call(self._close)
        self._thread.shutdown()

    async def add_run(self, run: Run, *, key: str, digest: str) -> None:
        """Keep a new run, and with it the request that made it when `key` is not empty."""
        row, created_at = _to_row(run), run.view.created_at

        def work() -> None:
            with self._connection as connection:
                connection.execute(_replace("runs", _COLUMNS), row)
                if key:
                    connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", (key, digest, run.id, created_at))

        await self._call(work)

    async def find_request(self, key: str) -> tuple[str, str] | None:
        """Digest and run of the request that was made with `key`."""
        query = "SELECT digest, run FROM requests WHERE key = ?"
        found: tuple[str, str] | None = await self._call(lambda: self._connection.execute(query, (key,)).fetchone())
        return found

    async def save(self, runs: Sequence[Run]) -> None:
        """Keep the present state of these runs and their new losses, in one transaction.

        The losses leave the runs when this is called and come back when it fails.
        """
        rows = [_to_row(run) for run in runs]
        losses = [(run, run.losses) for run in runs if run.losses]
        for run, _ in losses:
            run.losses = []

        def work() -> None:
            with self._connection as connection:
                connection.executemany(_replace("runs", _COLUMNS), rows)
                for run, steps in losses:
                    values = [(run.id, step.step, step.loss, step.learn_rate) for step in steps]
                    connection.executemany("REPLACE INTO losses VALUES (?, ?, ?, ?)", values)
                    _sum_blocks(connection, run.id, min(row[1] for row in values), max(row[1] for row in values))

        try:
            await self._call(work)
        except VocableError:
            for run, steps in losses:
                run.losses = [*steps, *run.losses]
            raise

    async def forget_losses(self, run: str, *, after_step: int) -> None:
        """Drop the losses of steps that will be done again."""

        def work() -> None:
            with self._connection as connection:
                connection.execute("DELETE FROM losses WHERE run = ? AND step > ?", (run, after_step))
                block = after_step // _BLOCK
                connection.execute("DELETE FROM loss_blocks WHERE run = ? AND block >= ?", (run, block))
                _sum_blocks(connection, run, block * _BLOCK + 1, after_step)

        await self._call(work)

    async def add_preview(self, run: str, *, step: int, path: str) -> None:
        def work() -> None:
            with self._connection as connection:
                connection.execute("REPLACE INTO previews VALUES (?, ?, ?)", (run, step, path))

        await self._call(work)

    async def previews(self, run: str) -> list[str]:
        """Paths, oldest step first."""
        query = "SELECT path FROM previews WHERE run = ? ORDER BY step, rowid"
        return await self._call(lambda: [row[0] for row in self._connection.execute(query, (run,))])

    async def losses(self, run: str, points: int) -> list[LossPoint]:
        """At most `points` buckets of consecutive steps over all finite losses, in order."""
        return await self._call(lambda: self._losses(run, points))

    def _losses(self, run: str, points: int) -> list[LossPoint]:
        last = self._connection.execute("SELECT MAX(step) FROM losses WHERE run = ?", (run,)).fetchone()[0]
        if last is None:
            return []
        size = -(-last // points)
        if size >= _BLOCK:
            size = -(-size // _BLOCK)
            query = """SELECT MAX(last), SUM(sum) / SUM(count), MIN(low), MAX(high) FROM loss_blocks
                       WHERE run = ? GROUP BY block / ? ORDER BY 1"""
        else:
            query = """SELECT MAX(step), AVG(loss), MIN(loss), MAX(loss) FROM losses
                       WHERE run = ? AND loss IS NOT NULL GROUP BY (step - 1) / ? ORDER BY 1"""
        rows = self._connection.execute(query, (run, size))
        return [LossPoint(step=step, mean=mean, low=low, high=high) for step, mean, low, high in rows]

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            raise sqlite3.ProgrammingError("it is not open")
        return self._opened

    def _open(self, now: float) -> list[Run]:
        self._opened = connection = sqlite3.connect(self._path, timeout=2)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _check_header(connection, self._path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:
                connection.execute("DELETE FROM requests WHERE created_at < ?", (now - REQUEST_LIFE_S,))
            rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs ORDER BY created_at, rowid")
            return [_from_row(row) for row in rows]
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._opened:
            self._opened.close()
            self._opened = None

    async def _call(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise _describe_failure(self._path, error) from error


def _check_header(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; refuse one that is not ours or from a newer program."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    is_empty = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
    if application == 0 and version == 0 and is_empty:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif application != APPLICATION_ID:
        raise VocableError("history.foreign", f"{path} is not a history of Vocable.", "Move it away and start again.")
    elif version > SCHEMA_VERSION:
        raise VocableError(
            "history.newer",
            f"{path} was written by a newer Vocable (schema {version}; this one knows {SCHEMA_VERSION}).",
            "Install that version again, or use another workspace.",
        )


def _describe_failure(path: Path, error: Exception) -> VocableError:
    if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return VocableError("disk.full", f"There is no room to write {path}.", "Free some space and try again.")
    return VocableError(
        "history.failed",
        f"The history {path} cannot be used ({error}).",
        "Check the disk and the file; a damaged file can be moved away, the runs' folders stay whole.",
    )


def _sum_blocks(connection: sqlite3.Connection, run: str, first: int, last: int) -> None:
    """Bring the blocks up to date that hold steps `first` to `last`."""
    whole_first = (first - 1) // _BLOCK * _BLOCK + 1
    whole_last = (last - 1) // _BLOCK * _BLOCK + _BLOCK
    connection.execute(_SUM_BLOCKS, {"run": run, "size": _BLOCK, "first": whole_first, "last": whole_last})


def _replace(table: str, columns: Sequence[str]) -> str:
    """An upsert that keeps the row's place, so that rows which refer to it stay."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns if column != "id")
    return f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}"


def _to_row(run: Run) -> tuple[Any, ...]:
    values = run.view.model_dump(mode="json")
    plain = [values[column] for column in _VIEW_COLUMNS]
    nested = [None if values[column] is None else json.dumps(values[column]) for column in _JSON_COLUMNS]
    return (*plain, *nested, json.dumps(run.recipe), run.position)


def _from_row(row: tuple[Any, ...]) -> Run:
    values = dict(zip(_COLUMNS, row, strict=True))
    for column in _JSON_COLUMNS:
        values[column] = None if values[column] is None else json.loads(values[column])
    recipe, position = json.loads(values.pop("recipe")), values.pop("position")
    return Run(RunView.model_validate(values), recipe, position)
