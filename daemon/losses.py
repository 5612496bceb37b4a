"""Losses in the history: every step of the newest runs, buckets of older ones, and how a plot reads them.

Called by the history in its one thread, with its connection. Beside the steps themselves there are blocks of 16 and of
256 consecutive steps, so that a plot of a million steps reads thousands of rows. A thinned run has blocks of one size
only, its `loss_unit`, each with mean, lowest and highest loss. When a thinned run goes on, the block in which it does
so tells of its new steps only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from daemon.protocol.runs import LossPoint
from engine.events import Step

KEPT_WHOLE = 10
"""So many runs that ended last keep every step."""

THINNED_POINTS = 2048
"""Blocks that a thinned run has at most; one with no more steps than that stays whole."""

_SIZES = (16, 256)
_SLICE = 8192
"""Steps worked on in one transaction, so that what else is to be saved waits for no more."""

_SUM_BLOCKS = """
REPLACE INTO loss_blocks
SELECT run, :size, (step - 1) / :size, COUNT(*), SUM(loss), MIN(loss), MAX(loss), MAX(step) FROM losses
WHERE run = :run AND step BETWEEN :first AND :last AND loss IS NOT NULL GROUP BY (step - 1) / :size
"""
_SUM_SMALLER_BLOCKS = """
REPLACE INTO loss_blocks
SELECT run, :size, block / (:size / :unit), SUM(count), SUM(sum), MIN(low), MAX(high), MAX(last) FROM loss_blocks
WHERE run = :run AND size = :unit GROUP BY block / (:size / :unit)
"""
_OLD_RUNS = """
SELECT id, loss_unit, (SELECT MAX(step) FROM losses WHERE run = id) AS last FROM runs
WHERE state IN ('stopped', 'finished', 'failed') ORDER BY ended_at DESC, created_at DESC LIMIT -1 OFFSET ?
"""


def add_losses(connection: sqlite3.Connection, run: str, steps: Sequence[Step]) -> None:
    """Add steps of a run, or replace them, inside the caller's transaction."""
    values = [(run, step.step, step.loss, step.learn_rate) for step in steps]
    connection.executemany("REPLACE INTO losses VALUES (?, ?, ?, ?)", values)
    for size in _sizes(_unit(connection, run)):
        _sum_blocks(connection, run, size, min(row[1] for row in values), max(row[1] for row in values))


def drop_losses(connection: sqlite3.Connection, run: str, after_step: int) -> None:
    """Drop the losses beyond `after_step`, inside the caller's transaction."""
    connection.execute("DELETE FROM losses WHERE run = ? AND step > ?", (run, after_step))
    for size in _sizes(_unit(connection, run)):
        block = after_step // size
        connection.execute("DELETE FROM loss_blocks WHERE run = ? AND size = ? AND block >= ?", (run, size, block))
        _sum_blocks(connection, run, size, block * size + 1, after_step)


def read_losses(connection: sqlite3.Connection, run: str, points: int) -> list[LossPoint]:
    """At most `points` buckets of consecutive steps over all finite losses, in order."""
    unit = _unit(connection, run)
    last = connection.execute("SELECT MAX(step) FROM losses WHERE run = ?", (run,)).fetchone()[0] or 0
    if unit > 1:
        query = "SELECT MAX(last) FROM loss_blocks WHERE run = ? AND size = ?"
        last = max(last, connection.execute(query, (run, unit)).fetchone()[0] or 0)
    wanted = -(-last // points)
    stored = unit if unit > 1 else max(size for size in (1, *_SIZES) if size <= max(wanted, 1))
    together = max(1, -(-wanted // stored))
    if stored == 1:
        query = """SELECT MAX(step), AVG(loss), MIN(loss), MAX(loss) FROM losses
                   WHERE run = ? AND loss IS NOT NULL GROUP BY (step - 1) / ? ORDER BY 1"""
        rows = connection.execute(query, (run, together))
    else:
        query = """SELECT MAX(last), SUM(sum) / SUM(count), MIN(low), MAX(high) FROM loss_blocks
                   WHERE run = ? AND size = ? GROUP BY block / ? ORDER BY 1"""
        rows = connection.execute(query, (run, stored, together))
    return [LossPoint(step=step, mean=mean, low=low, high=high) for step, mean, low, high in rows]


def rebuild_blocks(connection: sqlite3.Connection) -> None:
    """Sum the blocks of all runs that have their single steps, inside the caller's transaction."""
    for run, unit in connection.execute("SELECT id, loss_unit FROM runs").fetchall():
        for size in _sizes(unit):
            _sum_blocks(connection, run, size, 1, _last(connection, run))


def find_thinnable(connection: sqlite3.Connection) -> list[str]:
    """Runs that ended long ago and still have single steps that a plot would not show."""
    rows = connection.execute(_OLD_RUNS, (KEPT_WHOLE,)).fetchall()
    return [run for run, unit, last in rows if last is not None and (unit > 1 or last > THINNED_POINTS)]


def thin(run: str) -> Iterator[Callable[[sqlite3.Connection], bool]]:
    """The transactions that thin a run, in order; one that returns False says that the run is not to be thinned now.

    Broken off anywhere, the run can still be read, and `find_thinnable` finds it again.
    """
    last, size = 0, 1

    def measure(connection: sqlite3.Connection) -> bool:
        nonlocal last, size
        last = _last(connection, run)
        size = _unit(connection, run)
        while size * THINNED_POINTS < last:
            size *= 2
        return last > 0

    yield measure
    for first in range(1, last + 1, _SLICE):
        yield partial(_sum_slice, run=run, size=size, first=first)
    yield partial(_settle, run=run, size=size, last=last)
    for first in range(1, last + 1, _SLICE):
        yield partial(_drop_slice, run=run, first=first)


def _sum_slice(connection: sqlite3.Connection, run: str, size: int, first: int) -> bool:
    if _unit(connection, run) == 1:
        _sum_blocks(connection, run, size, first, first + _SLICE - 1)
    return True


def _settle(connection: sqlite3.Connection, run: str, size: int, last: int) -> bool:
    """From here on the run's losses are its blocks, unless it went on meanwhile."""
    unit = _unit(connection, run)
    state = connection.execute("SELECT state FROM runs WHERE id = ?", (run,)).fetchone()
    if state is None or state[0] not in ("stopped", "finished", "failed") or _last(connection, run) != last:
        return False
    if 1 < unit < size:
        connection.execute(_SUM_SMALLER_BLOCKS, {"run": run, "size": size, "unit": unit})
    connection.execute("UPDATE runs SET loss_unit = ? WHERE id = ?", (size, run))
    connection.execute("DELETE FROM loss_blocks WHERE run = ? AND size <> ?", (run, size))
    return True


def _drop_slice(connection: sqlite3.Connection, run: str, first: int) -> bool:
    query = "DELETE FROM losses WHERE run = ? AND step BETWEEN ? AND ?"
    connection.execute(query, (run, first, first + _SLICE - 1))
    return True


def _last(connection: sqlite3.Connection, run: str) -> int:
    return connection.execute("SELECT MAX(step) FROM losses WHERE run = ?", (run,)).fetchone()[0] or 0


def _unit(connection: sqlite3.Connection, run: str) -> int:
    row = connection.execute("SELECT loss_unit FROM runs WHERE id = ?", (run,)).fetchone()
    return int(row[0]) if row else 1


def _sizes(unit: int) -> tuple[int, ...]:
    return _SIZES if unit == 1 else (unit,)


def _sum_blocks(connection: sqlite3.Connection, run: str, size: int, first: int, last: int) -> None:
    """Bring the blocks up to date that hold steps `first` to `last`."""
    whole_first = (first - 1) // size * size + 1
    whole_last = (last - 1) // size * size + size
    connection.execute(_SUM_BLOCKS, {"run": run, "size": size, "first": whole_first, "last": whole_last})
