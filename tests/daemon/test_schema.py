"""The SQLite file between versions: migrations, their backups, what is refused, and kills in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from daemon import schema
from daemon.history import History
from daemon.losses import read_losses
from daemon.salvage import open_database
from daemon.schema import APPLICATION_ID, KEPT_BACKUPS, MIGRATIONS, VERSION
from engine.errors import VocableError
from tests.daemon.test_history import make_run, steps


async def make_first_version(path: Path, losses: int = 600) -> None:
    """A file as the first version wrote it: one run with so many losses, in blocks of 256."""
    history = History(path.with_name("now.db"))
    await history.open(now=1000.0)
    run = make_run()
    await history.add_run(run, key="key", digest="digest")
    run.losses = steps(*(1 / step for step in range(1, losses + 1)))
    await history.save([run])
    await history.close()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"PRAGMA journal_mode = WAL; {MIGRATIONS[0]} PRAGMA user_version = 1;")
        old.execute("ATTACH ? AS now", (str(path.with_name("now.db")),))
        names = ", ".join(row[1] for row in old.execute("PRAGMA main.table_info(runs)"))
        with old:
            old.execute(f"INSERT INTO runs ({names}) SELECT {names} FROM now.runs")
            for table in ("losses", "requests"):
                old.execute(f"INSERT INTO main.{table} SELECT * FROM now.{table}")
            columns = "run, block, count, sum, low, high, last"
            old.execute(f"INSERT INTO main.loss_blocks SELECT {columns} FROM now.loss_blocks WHERE size = 256")
    path.with_name("now.db").unlink()


def check_migrated(path: Path) -> None:
    connection, notice = open_database(path, now=0.0)
    with closing(connection):
        assert notice == ""
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("SELECT COUNT(*), MAX(step) FROM losses").fetchone() == (600, 600)
        for points in (600, 40, 3):
            found = read_losses(connection, "abc123", points)
            assert (found[0].high, found[-1].low, found[-1].step) == (1.0, 1 / 600, 600)
            assert len(found) <= points


async def test_an_older_file_is_brought_up_to_date_with_everything_in_it(tmp_path: Path) -> None:
    await make_first_version(tmp_path / "vocable.db")
    history = History(tmp_path / "vocable.db")
    [run] = await history.open(now=1000.0)
    assert run.view == make_run().view
    assert await history.find_request("key") == ("digest", run.id)
    await history.close()
    check_migrated(tmp_path / "vocable.db")


async def test_the_file_is_copied_before_a_migration_and_the_copy_is_of_the_old_version(tmp_path: Path) -> None:
    await make_first_version(tmp_path / "vocable.db")
    check_migrated(tmp_path / "vocable.db")
    assert sorted(os.listdir(tmp_path)) == ["vocable.db", "vocable.v1-19700101T000000Z.db"]
    with closing(sqlite3.connect(tmp_path / "vocable.v1-19700101T000000Z.db")) as copy:
        assert copy.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert copy.execute("SELECT COUNT(*) FROM losses").fetchone() == (600,)


async def test_only_the_newest_backups_stay(tmp_path: Path) -> None:
    path = tmp_path / "vocable.db"
    for day in range(KEPT_BACKUPS + 2):
        path.unlink(missing_ok=True)
        await make_first_version(path, losses=1)
        open_database(path, now=day * 86400.0)[0].close()
    kept = sorted(name for name in os.listdir(tmp_path) if ".v1-" in name)
    assert kept == [f"vocable.v1-1970010{day}T000000Z.db" for day in (3, 4, 5)]


def test_a_new_file_needs_no_backup(tmp_path: Path) -> None:
    open_database(tmp_path / "vocable.db", now=0.0)[0].close()
    assert os.listdir(tmp_path) == ["vocable.db"]


async def test_a_newer_file_is_refused_and_the_backup_that_would_do_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vocable.db"
    await make_first_version(path)
    check_migrated(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(VocableError) as caught:
        open_database(path, now=0.0)
    assert caught.value.code == "history.newer"
    assert "vocable.v1-19700101T000000Z.db" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("failing", ["SELECT no_such_function();", "INSERT INTO losses VALUES (1);"])
async def test_a_migration_that_fails_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "vocable.db"
    await make_first_version(path)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (MIGRATIONS[0], MIGRATIONS[1] + failing))
        with pytest.raises(sqlite3.OperationalError):
            open_database(path, now=0.0)
    check_migrated(path)


def kill_at_statement(number: int, work: Callable[[], object]) -> bool:
    """Do `work` in a forked process that is killed before its SQL statement `number`; whether it came so far."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    done = 0

    def count(_statement: str) -> None:
        nonlocal done
        done += 1
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    class Counted(sqlite3.Connection):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)  # type: ignore[arg-type]
            self.set_trace_callback(count)

    try:
        real = sqlite3.connect
        sqlite3.connect = lambda path, **named: real(path, factory=Counted, **named)  # type: ignore[assignment]
        work()
    finally:
        os._exit(0)


async def test_a_kill_before_any_statement_of_a_migration_loses_nothing(tmp_path: Path) -> None:
    await make_first_version(tmp_path / "first.db")
    for number in range(1, 200):
        path = tmp_path / str(number) / "vocable.db"
        path.parent.mkdir()
        shutil.copy(tmp_path / "first.db", path)
        was_killed = kill_at_statement(number, lambda path=path: open_database(path, now=0.0)[0].close())
        check_migrated(path)
        assert not list(path.parent.glob(".*"))
        if not was_killed:
            break
    assert 15 < number < 199


OPEN_AND_SAY = """
import asyncio, sys
from pathlib import Path
from daemon.history import History
from engine.errors import VocableError
try:
    asyncio.run(History(Path(sys.argv[1])).open(now=0.0))
except VocableError as error:
    print(error.code)
"""


def test_a_second_process_is_refused_from_the_moment_the_file_is_open(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_AND_SAY, str(tmp_path / "vocable.db")]
    with closing(open_database(tmp_path / "vocable.db", now=0.0)[0]):
        assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "history.locked\n"
        reader = sqlite3.connect(tmp_path / "vocable.db", timeout=0)
        with closing(reader), pytest.raises(sqlite3.OperationalError, match="locked"):
            reader.execute("SELECT * FROM runs")
