"""Recipes dropped into inbox/ of a real service: queued and moved to done/, or refused with the reason beside them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon import drops, folders, inbox
from daemon.paths import Workspace
from daemon.protocol.runs import RunView
from daemon.salvage import open_database
from daemon.schema import VERSION
from daemon.watch import Timing
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Running, serving
from tests.mounts import MIB, remount, small_disk

QUICK = Timing(settle_s=0.05, large_settle_s=0.1, empty_settle_s=0.2, poll_s=0.1, gather_s=0.01)

GOOD = '# {name}\nname = "{name}"\nmodel = "tiny"\n[data]\nfolder = "faces"\n[train]\nsteps = 100\n'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "INBOX_TIMING", QUICK)
    monkeypatch.setattr(folders, "TIMING", QUICK)
    monkeypatch.setattr(inbox, "RETRY_S", (0.05, 0.1))
    monkeypatch.setattr(inbox, "_STUCK_S", 0.1)


@pytest.fixture
def box(workspace: Workspace) -> Path:
    return workspace.inbox


def good(name: str) -> str:
    return GOOD.format(name=name)


async def outcome(running: Running, path: Path, trigger: Callable[[], Any]) -> dict[str, Any]:
    """What is told of the recipe at `path` after `trigger` was called."""
    return await fact(running, "recipe", lambda data: data["path"] == str(path), trigger)


async def fact(
    running: Running, topic: str, fits: Callable[[dict[str, Any]], Any], trigger: Callable[[], Any] = lambda: None
) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        stream = running.client.events()
        await anext(stream)
        trigger()
        async for line in stream:
            if line.topic == topic and fits(line.data):
                return line.data
    raise AssertionError("the stream ended")


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


async def test_a_good_recipe_is_queued_and_moved_to_done(running: Running, box: Path) -> None:
    told = await outcome(running, box / "fox.toml", lambda: (box / "fox.toml").write_text(good("fox")))
    (run,) = await running.client.runs()
    assert (told["outcome"], told["run"], run.name) == ("queued", run.id, "fox")
    assert names(box) == {"done", "refused"}
    assert (box / "done" / "fox.toml").read_text() == good("fox")


async def test_a_faulty_recipe_is_refused_with_every_fault_beside_it(running: Running, box: Path) -> None:
    text = 'name = "a\\u001b[31m/b"\nmodel = "none"\n[data]\nfolder = "faces"\n[train]\nstep = 3\n'
    told = await outcome(running, box / "bad.toml", lambda: (box / "bad.toml").write_text(text))
    assert (told["outcome"], told["code"], await running.client.runs()) == ("refused", "recipe.invalid", [])
    assert names(box / "refused") == {"bad.toml", "bad.toml.reason.txt"}
    reason = (box / "refused" / "bad.toml.reason.txt").read_text()
    assert "name: " in reason
    assert "train.step: is not known; did you mean train.steps?" in reason
    assert "move the file back" in reason
    assert "\x1b" not in reason + told["reason"]


async def test_what_only_the_disk_knows_is_a_reason_too(running: Running, box: Path) -> None:
    text = good("fox").replace("faces", "nowhere").replace("tiny", "none")
    await outcome(running, box / "fox.toml", lambda: (box / "fox.toml").write_text(text))
    reason = (box / "refused" / "fox.toml.reason.txt").read_text()
    assert "data.folder: there is no folder 'nowhere'" in reason
    assert "model: there is no model 'none'" in reason


async def test_a_refused_recipe_that_is_moved_back_is_tried_again(running: Running, box: Path) -> None:
    path, refused = box / "fox.toml", box / "refused" / "fox.toml"
    await outcome(running, path, lambda: path.write_text("name = 3"))
    told = await outcome(running, path, lambda: refused.rename(path))
    assert told["outcome"] == "refused"
    refused.write_text(good("fox"))
    told = await outcome(running, path, lambda: refused.rename(path))
    assert told["outcome"] == "queued"
    assert names(box / "refused") == set()


async def test_names_that_are_taken_get_numbers(running: Running, box: Path) -> None:
    path = box / "fox.toml"
    for name in ("one", "two", "three"):
        await outcome(running, path, lambda name=name: path.write_text(good(name)))
    for _ in range(2):
        await outcome(running, path, lambda: path.write_text("x = 1"))
    assert names(box / "done") == {"fox.toml", "fox-2.toml", "fox-3.toml"}
    assert names(box / "refused") == {
        *("fox.toml", "fox.toml.reason.txt"),
        *("fox-2.toml", "fox-2.toml.reason.txt"),
    }


NO_RECIPES = {
    "latin": (b"name = \xff", "not UTF-8"),
    "cut": (b"name = ", "not TOML"),
    "nested": (b"x = " + b"[" * 8000, "not TOML"),
    "digits": (b"x = " + b"9" * 8000, "not TOML"),
    "hex": (b"x = 0x" + b"f" * 8000, "not TOML"),
    "keys": (b"x." * 10_000 + b"x = 1", "shorter lines"),
    "huge": (b"# " + b"long\n" * (1 << 18), "2 MiB large"),
    "empty": (b"", "name: is missing"),
    "date": (b"name = 1979-05-27", "name: "),
}


async def test_what_is_no_recipe_is_refused(running: Running, box: Path) -> None:
    def drop() -> None:
        for name, (content, _) in NO_RECIPES.items():
            (box / f"{name}.toml").write_bytes(content)

    refused: set[str] = set()
    await fact(running, "recipe", lambda data: refused.add(data["path"]) or len(refused) == len(NO_RECIPES), drop)
    for name, (_, says) in NO_RECIPES.items():
        assert says in (box / "refused" / f"{name}.toml.reason.txt").read_text()
    assert await running.client.runs() == []


async def test_links_and_pipes_are_refused_unopened(running: Running, box: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text(good("fox"))
    told = await outcome(running, box / "link.toml", lambda: (box / "link.toml").symlink_to(tmp_path / "secret.toml"))
    assert told["code"] == "file.kind"
    told = await outcome(running, box / "pipe.toml", lambda: os.mkfifo(box / "pipe.toml"))
    assert told["code"] == "file.kind"
    assert (tmp_path / "secret.toml").read_text() == good("fox")
    assert await running.client.runs() == []


async def test_other_files_and_folders_are_left_alone(running: Running, box: Path) -> None:
    for name in ("notes.txt", ".hidden.toml", "fox.toml.part"):
        (box / name).write_text(good("no"))
    (box / "sub.toml").mkdir()
    (box / "sub.toml" / "deep.toml").write_text(good("deep"))
    for name in ("done", "refused"):
        (box / name).mkdir(exist_ok=True)
        (box / name / "old.toml").write_text(good("old"))
    await outcome(running, box / "fox.toml", lambda: (box / "fox.toml").write_text(good("fox")))
    assert [run.name for run in await running.client.runs()] == ["fox"]
    assert names(box) == {"notes.txt", ".hidden.toml", "fox.toml.part", "sub.toml", "done", "refused"}


async def test_long_and_foreign_names_are_moved_too(running: Running, box: Path) -> None:
    long = "x" * 250 + ".toml"
    assert (await outcome(running, box / long, lambda: (box / long).write_text("x = 1")))["outcome"] == "refused"
    (refused,) = (name for name in names(box / "refused") if name.endswith(".toml"))
    assert f"{refused}.reason.txt" in names(box / "refused")
    raw = os.fsencode(box) + b"/b\xff.toml"
    await fact(
        running, "recipe", lambda data: "\\udcff" in data["path"], lambda: Path(os.fsdecode(raw)).write_text("x = 1")
    )
    assert b"b\xff.toml" in os.listdir(os.fsencode(box / "refused"))


async def test_a_file_that_is_written_slowly_is_read_whole(running: Running, box: Path) -> None:
    path = box / "slow.toml"
    text = good("slow")
    with path.open("w") as file:
        for char in text:
            file.write(char)
            file.flush()
            await asyncio.sleep(0.002)
        told = asyncio.create_task(outcome(running, path, lambda: None))
    assert (await told)["outcome"] == "queued"
    assert (box / "done" / "slow.toml").read_text() == text


async def test_a_name_that_is_being_trained_is_refused(running: Running, box: Path) -> None:
    await running.train("fox")
    told = await outcome(running, box / "fox.toml", lambda: (box / "fox.toml").write_text(good("fox")))
    assert told["code"] == "run.name_taken"
    assert "Choose another name" in (box / "refused" / "fox.toml.reason.txt").read_text()


async def test_paths_that_begin_at_the_workspace_are_found(running: Running, box: Path, workspace: Workspace) -> None:
    for number, folder in enumerate(("datasets/faces", "./datasets/faces", str(workspace.datasets / "faces"))):
        path, text = box / f"{number}.toml", good(f"w{number}").replace("faces", folder)
        assert (await outcome(running, path, lambda path=path, text=text: path.write_text(text)))["outcome"] == "queued"
    runs = [await running.client.run(run.id) for run in await running.client.runs()]
    assert {run.recipe["data"]["folder"] for run in runs} == {str(workspace.datasets / "faces")}


async def test_what_was_dropped_while_no_service_ran_is_taken_in_order_of_names(workspace: Workspace) -> None:
    for name in ("w10", "w9", "w1"):
        (workspace.inbox / f"{name}.toml").write_text(good(name))
    async with serving(workspace) as running:
        await until_runs(running, 3)
        runs = sorted(await running.client.runs(), key=lambda run: run.created_at)
        assert [run.name for run in runs] == ["w1", "w9", "w10"]


async def test_a_recipe_queued_just_before_a_kill_is_queued_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace.inbox / "fox.toml"

    def die(*_: Any) -> None:
        raise VocableError("disk.write", "It was killed before the file was moved.")

    with monkeypatch.context() as patch:
        patch.setattr(inbox, "_move", die)
        async with serving(workspace) as running:
            await fact(
                running, "problem", lambda data: "killed" in data["problem"], lambda: path.write_text(good("fox"))
            )
            (before,) = await running.client.runs()
    async with serving(workspace) as running:
        later = workspace.inbox / "later.toml"
        await outcome(running, later, lambda: later.write_text(good("later")))
        assert names(workspace.inbox / "done") == {"fox.toml", "later.toml"}
        assert {run.name: run.id for run in await running.client.runs()}["fox"] == before.id
        assert len(await running.client.runs()) == 2


async def test_a_recipe_that_was_trained_may_be_dropped_again(running: Running, box: Path) -> None:
    path = box / "fox.toml"
    told = await outcome(running, path, lambda: path.write_text(good("fox")))
    worker = await running.crew.worker()
    await worker.told("train")
    worker.tell(told["run"], event="ended", outcome="stopped", step=7, embedding="")
    await running.until_state(told["run"], "stopped")
    again = await outcome(running, path, lambda: (box / "done" / "fox.toml").rename(path))
    assert again["outcome"] == "queued"
    assert again["run"] != told["run"]


async def test_an_inbox_that_cannot_be_written_to_is_a_problem_until_it_can(running: Running, box: Path) -> None:
    (box / "done").write_text("in the way")
    (box / "fox.toml").write_text(good("fox"))
    await until_problem(running, "inbox")
    assert await running.client.runs() == []
    (box / "done").unlink()
    await until_runs(running, 1)
    await until_problem(running, "")
    assert names(box) == {"done", "refused"}


async def test_nothing_is_queued_from_a_read_only_inbox(workspace: Workspace) -> None:
    workspace.inbox.rmdir()
    with small_disk(workspace.inbox, MIB):
        for name in ("done", "refused"):
            (workspace.inbox / name).mkdir()
        (workspace.inbox / "fox.toml").write_text(good("fox"))
        remount(workspace.inbox, writable=False)
        async with serving(workspace) as running:
            await until_problem(running, "inbox")
            assert await running.client.runs() == []
            remount(workspace.inbox, writable=True)
            await until_runs(running, 1)
            await until_problem(running, "")


async def test_a_recipe_that_cannot_be_read_is_a_problem_and_taken_as_soon_as_it_can(
    running: Running, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise VocableError("file.unreadable", "The file cannot be read (Permission denied).", "Check its permissions.")

    with monkeypatch.context() as patch:
        patch.setattr(drops, "take_in", refuse)
        (box / "fox.toml").write_text(good("fox"))
        await until_problem(running, "fox.toml is not taken yet: The file cannot be read")
    await until_runs(running, 1)
    await until_problem(running, "")


async def test_a_service_that_can_keep_no_run_leaves_recipes_where_they_are(workspace: Workspace) -> None:
    open_database(workspace.database, now=0.0)[0].close()
    with closing(sqlite3.connect(workspace.database)) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    (workspace.inbox / "fox.toml").write_text(good("fox"))
    async with serving(workspace) as running:
        # Recipes are taken in the order of their names, so the first was tried when the second is refused.
        later = workspace.inbox / "later.toml"
        await outcome(running, later, lambda: later.symlink_to("nowhere"))
        assert names(workspace.inbox) == {"fox.toml", "done", "refused"}
        assert names(workspace.inbox / "refused") == {"later.toml", "later.toml.reason.txt"}


async def test_the_watched_folders_are_shown_with_their_entries(running: Running, workspace: Workspace) -> None:
    def settle() -> None:
        (workspace.templates / "mine.txt").write_text("a [name]")

    told = await fact(running, "folder", lambda data: data["name"] == "templates" and data["entries"] == 1, settle)
    assert told["mode"] in ("inotify", "polling")
    health = await running.until_watched()
    assert set(health) >= {"embeddings", "datasets", "templates", "models", "inbox"}
    assert {name: health[name]["entries"] for name in ("datasets", "models", "templates")} == {
        "datasets": 1,
        "models": 1,
        "templates": 1,
    }


async def until_runs(running: Running, count: int) -> list[RunView]:
    async with asyncio.timeout(PATIENCE_S):
        stream = running.client.events()
        await anext(stream)
        while len(runs := await running.client.runs()) < count:
            while (await anext(stream)).topic != "run":
                pass
    return runs


async def until_problem(running: Running, part: str) -> None:
    """Wait until the service's problem holds `part`, or, when that is empty, until there is none."""
    async with asyncio.timeout(PATIENCE_S):
        stream = running.client.events()
        await anext(stream)
        while True:
            problem = (await running.client.state()).problem
            if part in problem if part else not problem:
                return
            while (await anext(stream)).topic != "problem":
                pass
