"""A damaged history: it goes to quarantine, and what can be read of it is taken over."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daemon.history import History
from daemon.salvage import open_database
from daemon.schema import APPLICATION_ID
from engine.files import write_atomically
from tests.daemon.test_history import make_run, steps
from tests.faults import count_calls, kill_at

RUNS = 40


async def make_history(path: Path) -> None:
    """A history of many runs with losses and a preview each."""
    history = History(path)
    await history.open(now=1000.0)
    for number in range(RUNS):
        run = make_run(f"run{number:03d}")
        await history.add_run(run, key=f"key{number}", digest="digest")
        run.losses = steps(*(float(step) for step in range(1, 101)))
        await history.save([run])
        await history.add_preview(run.id, step=1, path=f"/previews/{number}")
    await history.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "vocable.db"
    asyncio.run(make_history(path))
    return path.read_bytes()


def spoil_leaf(data: bytes, table: str, path: Path) -> bytes:
    """The file with one page overwritten that holds rows in the middle of `table`."""
    write_atomically(path, data)
    with closing(sqlite3.connect(path)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    page = data[(root - 1) * size : root * size]
    assert page[0] in (2, 5)  # the root is no leaf itself: https://sqlite.org/fileformat2.html#b_tree_pages
    cells = int.from_bytes(page[3:5])
    place = int.from_bytes(page[12 + cells // 2 * 2 :][:2])
    leaf = int.from_bytes(page[place : place + 4])
    return data[: (leaf - 1) * size] + b"\xff" * size + data[leaf * size :]


def check_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("quarantine/*/vocable.db")]


@pytest.mark.parametrize("table", ["runs", "losses"])
async def test_runs_and_losses_on_both_sides_of_the_damage_are_taken_over(
    tmp_path: Path, whole: bytes, table: str
) -> None:
    path = tmp_path / "vocable.db"
    spoilt = spoil_leaf(whole, table, tmp_path / "copy.db")
    write_atomically(path, spoilt)
    history = History(path)
    found = [run.id for run in await history.open(now=1000.0)]
    if table == "losses":
        assert len(found) == RUNS
        assert (await history.losses("run000", 1))[0].mean == pytest.approx(50.5)
    assert RUNS / 2 < len(found) <= RUNS
    assert {"run000", f"run{RUNS - 1:03d}"} <= set(found)
    assert await history.previews("run000") == ["/previews/0"]
    assert await history.find_request("key0") == ("digest", "run000")
    assert f"{len(found)} runs could be taken over" in history.notice
    await history.close()
    assert kept(tmp_path) == [spoilt]
    check_sound(path)


async def test_a_file_that_is_no_database_is_kept_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "vocable.db"
    write_atomically(path, b"this is no database" * 1000)
    history = History(path)
    assert await history.open(now=1000.0) == []
    assert "file is not a database" in history.notice
    await history.close()
    assert kept(tmp_path) == [b"this is no database" * 1000]


def test_damage_anywhere_never_keeps_the_history_from_opening(tmp_path: Path, whole: bytes) -> None:
    path, draw = tmp_path / "vocable.db", random.Random(3)
    for _ in range(40):
        place, length = draw.randrange(100, len(whole)), draw.choice((1, 16, 5000))
        write_atomically(path, whole[:place] + draw.randbytes(length) + whole[place + length :])
        connection, notice = open_database(path, now=0.0)
        connection.close()
        check_sound(path)
        assert not notice or kept(tmp_path)


async def test_a_kill_at_any_move_of_a_rescue_loses_no_run(tmp_path: Path, whole: bytes) -> None:
    spoilt = spoil_leaf(whole, "losses", tmp_path / "copy.db")

    def rescue(root: Path) -> None:
        open_database(root / "vocable.db", now=0.0)[0].close()

    def prepared(name: str) -> Path:
        write_atomically(tmp_path / name / "vocable.db", spoilt)
        return tmp_path / name

    calls = count_calls(prepared("0"), lambda: rescue(tmp_path / "0"))
    assert calls > 5
    for at in range(1, calls + 1):
        root = prepared(str(at))
        assert kill_at(root, at, lambda root=root: rescue(root))
        history = History(root / "vocable.db")
        assert len(await history.open(now=1000.0)) == RUNS
        await history.close()
        assert kept(root) == [spoilt]
        assert sorted(os.listdir(root)) == ["quarantine", "vocable.db"]
