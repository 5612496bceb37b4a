"""What outlives the service: runs, their losses and previews, and answered requests, in one SQLite file.

One connection in one thread of one process (versions before 3.51.3 can corrupt a WAL that two connections write), so
the file is locked while the service runs and others ask the service instead. Every commit is on disk when it returns.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from daemon.losses import add_losses, drop_losses, find_thinnable, read_losses, thin
from daemon.protocol.runs import LossPoint, RunView
from daemon.runs import Run
from daemon.salvage import open_database
from engine.errors import VocableError
from engine.files import NO_ROOM

REQUEST_LIFE_S = 7 * 24 * 3600
"""How long an idempotency key is remembered."""

_VIEW_COLUMNS = (
    *("id", "name", "kind", "model", "folder", "state", "asked", "step", "steps", "loss", "mean_loss", "learn_rate"),
    *("prompt", "preview", "preview_step", "embedding", "restarts", "created_at", "started_at", "ended_at"),
)
_JSON_COLUMNS = ("error", "warnings")
_COLUMNS = (*_VIEW_COLUMNS, *_JSON_COLUMNS, "recipe", "position")

Result = TypeVar("Result")


class History:
    """The database. All methods are called on the event loop; the work is done in the one thread, in order.

    Every method raises VocableError: `disk.full` or `history.failed` with SQLite's reason. A commit is on disk when it
    returns; losses, which come many a second, are therefore handed over in bulk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._opened: sqlite3.Connection | None = None
        self.notice = ""
        """What people should know of the file as it was found; empty when it was whole."""

    async def open(self, *, now: float) -> list[Run]:
        """Open or create the file and return all runs, oldest first.

        A damaged file is moved to `quarantine/` beside it, and what can be read of it is taken over into a new one;
        `notice` says so.

        Raises:
            VocableError: `history.newer`, `history.foreign`, `history.locked`, `history.failed` or `disk.full`; the
                file is left as it is.
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
                    add_losses(connection, run.id, steps)

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
                drop_losses(connection, run, after_step)

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
        return await self._call(lambda: read_losses(self._connection, run, points))

    async def thin(self) -> None:
        """Make buckets of the losses of runs that ended long ago, in many short transactions with others in between."""
        for run in await self._call(lambda: find_thinnable(self._connection)):
            for change in thin(run):
                if not await self._call(partial(self._change, change)):
                    break

    def _change(self, change: Callable[[sqlite3.Connection], bool]) -> bool:
        with self._connection as connection:
            return change(connection)

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            raise sqlite3.ProgrammingError("it is not open")
        return self._opened

    def _open(self, now: float) -> list[Run]:
        try:
            self._opened, self.notice = open_database(self._path, now=now)
            self._forget_requests(now - REQUEST_LIFE_S)
            return self._read_runs()
        except BaseException:
            self._close()
            raise

    def _forget_requests(self, before: float) -> None:
        """Drop old idempotency keys, unless the disk is full: what cannot be written now can still be read."""
        try:
            with self._connection as connection:
                connection.execute("DELETE FROM requests WHERE created_at < ?", (before,))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise

    def _read_runs(self) -> list[Run]:
        """All runs, oldest first; one that makes no sense is left where it is, and out."""
        runs = []
        rows = self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs ORDER BY created_at, rowid")
        for row in rows:
            try:
                runs.append(_from_row(row))
            except ValueError:
                self.notice += f" Run {row[0]} of the history cannot be read and is left out."
        self.notice = self.notice.strip()
        return runs

    def _close(self) -> None:
        if self._opened:
            self._opened.close()
            self._opened = None

    async def _call(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise _describe_failure(self._path, error) from error


def _describe_failure(path: Path, error: Exception) -> VocableError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in NO_ROOM:
        return VocableError("disk.full", f"There is no room to write {path}.", "Free some space and try again.")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        title = f"The history {path} cannot be written to ({error})."
        return VocableError("history.failed", title, "Check the permissions of folder and file, and how it is mounted.")
    return VocableError(
        "history.failed",
        f"The history {path} cannot be used ({error}).",
        "Check the disk and the file; a damaged file can be moved away, the runs' folders stay whole.",
    )


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
