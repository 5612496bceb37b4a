"""Runs that are deleted and taken back: nothing is lost, whatever fails on the way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from daemon.paths import Workspace
from daemon.protocol.runs import RunView
from daemon.trash import is_fetchable, move_folder
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Running, recipe, serving
from tests.faults import count_calls, kill_at


async def finish(running: Running, name: str = "fox") -> RunView:
    """A run that did two steps, wrote a file and was stopped."""
    run = await running.train(name)
    worker = await running.crew.worker()
    folder = Path((await worker.told("train", run=run.id))["folder"])
    (folder / "log.txt").write_text("begun")
    worker.step(run.id, 1, 2)
    await running.client.command(run.id, "stop")
    worker.tell(run.id, event="ended", outcome="stopped", step=2, embedding="")
    return await running.until_state(run.id, "stopped")


def log_of(folder: str) -> str:
    """What the run wrote, empty when there is nothing."""
    path = Path(folder, "log.txt")
    return path.read_text() if path.exists() else ""


def write(folder: str, name: str) -> None:
    Path(folder, name).write_text("more")


async def code_of(asking: object) -> str:
    with pytest.raises(VocableError) as caught:
        await asking  # type: ignore[misc]
    return caught.value.code


async def test_a_deleted_run_lies_in_the_trash_and_comes_back_as_it_was(running: Running) -> None:
    run = await finish(running)
    before = await running.client.run(run.id)
    deleted = await running.client.delete_run("fox")
    trash = running.workspace.trash / "runs"
    assert Path(deleted.folder).relative_to(trash) == Path(run.folder).relative_to(running.workspace.runs)
    assert log_of(deleted.folder) == "begun"
    assert log_of(run.folder) == ""
    assert await running.client.runs() == []
    assert await code_of(running.client.run(run.id)) == "run.unknown"
    assert (await running.client.restore_run(run.id)).folder == run.folder
    assert await running.client.run(run.id) == before
    assert log_of(run.folder) == "begun"
    assert len((await running.client.losses(run.id)).points) == 2


async def test_followers_are_told(running: Running) -> None:
    run = await finish(running)
    state = await running.client.state()
    await running.client.delete_run(run.id)
    await running.client.restore_run(run.id)
    stream = running.client.events(f"{state.boot_id}:{state.seq}")
    told: list[tuple[str, str]] = []
    async for line in stream:
        if line.topic == "run.removed" or (told and line.topic == "run"):
            told.append((line.topic, line.data["id"]))
        if len(told) == 2:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    assert told == [("run.removed", run.id), ("run", run.id)]


async def test_a_deleted_run_stays_deleted_over_a_restart_and_comes_back_after_it(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run = await finish(running)
        await running.client.delete_run(run.id)
    async with serving(workspace) as running:
        assert await running.client.runs() == []
        await running.client.restore_run("fox")
        assert [view.id for view in await running.client.runs()] == [run.id]


async def test_only_runs_that_ended_can_be_deleted(running: Running) -> None:
    run, waiting = await running.train("one"), await running.train("two")
    await (await running.crew.worker()).told("train", run=run.id)
    assert await code_of(running.client.delete_run(run.id)) == "run.state"
    assert await code_of(running.client.delete_run(waiting.id)) == "run.state"
    assert await code_of(running.client.restore_run(run.id)) == "run.unknown"
    assert len(await running.client.runs()) == 2


async def test_a_request_that_is_repeated_after_its_run_was_deleted_makes_no_second_one(running: Running) -> None:
    recipe = (await running.client.run((await finish(running)).id)).recipe | {"name": "owl"}
    run = await running.client.create_run(recipe, key="key")
    worker = await running.crew.worker()
    await worker.told("train", run=run.id)
    await running.client.command(run.id, "stop")
    worker.tell(run.id, event="ended", outcome="stopped", step=0, embedding="")
    await running.until_state(run.id, "stopped")
    await running.client.delete_run(run.id)
    assert (await running.client.create_run(recipe, key="key")).id == run.id
    assert [view.name for view in await running.client.runs()] == ["fox"]


async def test_a_key_whose_run_cannot_be_read_any_more_is_refused_in_a_sentence(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        wanted = recipe(workspace, "fox")
        run = await running.client.create_run(wanted, key="key")
    with contextlib.closing(sqlite3.connect(workspace.database)) as database, database:
        database.execute("UPDATE runs SET state = 'nonsense' WHERE id = ?", (run.id,))
    async with serving(workspace) as running:
        assert await code_of(running.client.create_run(wanted, key="key")) == "request.key_reused"
        assert (await running.client.create_run(wanted, key="another")).state == "queued"


async def test_a_folder_that_cannot_be_moved_leaves_the_run_as_it_was(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await finish(running)

    def refuse(*paths: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr("daemon.trash.os.rename", refuse)
        assert await code_of(running.client.delete_run(run.id)) == "disk.write"
    assert (await running.client.run(run.id)).folder == run.folder
    assert log_of(run.folder) == "begun"


@contextmanager
def two_disks(copied: Callable[[], object] = lambda: None) -> Iterator[None]:
    """trash/ is a mount of its own while the block runs; `copied` is called before each copy of a file."""
    rename, copy = os.rename, shutil.copy2

    def cross(source: Path, destination: Path) -> None:
        if ("trash" in Path(source).parts) != ("trash" in Path(destination).parts):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, destination)

    def tell(*arguments: Any, **options: Any) -> object:
        copied()
        return copy(*arguments, **options)

    with mock.patch.object(os, "rename", cross), mock.patch.object(shutil, "copy2", tell):
        yield


async def test_a_trash_on_another_disk_takes_a_whole_copy_and_gives_it_back(running: Running) -> None:
    run = await finish(running)
    with two_disks():
        deleted = await running.client.delete_run(run.id)
        assert os.listdir(Path(deleted.folder).parent) == [Path(deleted.folder).name]
        assert os.listdir(Path(run.folder).parent) == []
        assert log_of(deleted.folder) == "begun"
        await running.client.restore_run(run.id)
    assert log_of(run.folder) == "begun"
    assert os.listdir(Path(deleted.folder).parent) == []


async def test_while_a_run_is_copied_to_another_disk_the_queue_goes_on(running: Running) -> None:
    run = await finish(running)
    is_copying, may_copy = threading.Event(), threading.Event()

    def wait() -> None:
        is_copying.set()
        assert may_copy.wait(PATIENCE_S)

    with two_disks(wait):
        deleting = asyncio.create_task(running.client.delete_run(run.id))
        assert await asyncio.to_thread(is_copying.wait, PATIENCE_S)
        other = await running.train("owl")
        assert (await running.until_state(other.id, "running")).name == "owl"
        restoring = asyncio.create_task(running.client.restore_run(run.id))
        may_copy.set()
        assert (await deleting).id == (await restoring).id == run.id
    assert log_of(run.folder) == "begun"


async def test_a_full_trash_leaves_the_run_as_it_was(running: Running) -> None:
    run = await finish(running)

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with two_disks(fail):
        assert await code_of(running.client.delete_run(run.id)) == "disk.full"
    assert (await running.client.run(run.id)).folder == run.folder
    assert os.listdir(Path(run.folder).parent) == [Path(run.folder).name]
    assert log_of(run.folder) == "begun"


async def test_a_service_that_stops_breaks_a_copy_off_and_the_run_stays(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run = await finish(running)
        is_copying, may_copy = threading.Event(), threading.Event()
        write(run.folder, "more.txt")

        def wait() -> None:
            is_copying.set()
            assert may_copy.wait(PATIENCE_S)

        with two_disks(wait):
            deleting = asyncio.create_task(code_of(running.client.delete_run(run.id)))
            assert await asyncio.to_thread(is_copying.wait, PATIENCE_S)
            await running.client.shutdown()
            may_copy.set()
            assert await deleting == "service.stopping"
            await running.task
    assert log_of(run.folder) == "begun"
    async with serving(workspace) as running:
        assert [view.id for view in await running.client.runs()] == [run.id]


def test_a_move_to_another_disk_that_is_killed_at_any_call_is_completed_by_the_next(tmp_path: Path) -> None:
    def prepare(root: Path) -> tuple[Path, Path]:
        (root / "runs" / "date" / "fox" / "images").mkdir(parents=True)
        (root / "runs" / "date" / "fox" / "log.txt").write_text("begun")
        (root / "runs" / "date" / "fox" / "images" / "1.png").write_text("picture")
        return root / "runs" / "date" / "fox", root / "trash" / "runs" / "date" / "fox"

    def move(source: Path, destination: Path) -> None:
        with two_disks():
            move_folder(source, destination, threading.Event())

    places = prepare(tmp_path / "count")
    count = count_calls(tmp_path, lambda: move(*places))
    for at in range(1, count + 1):
        source, destination = prepare(tmp_path / str(at))
        assert kill_at(tmp_path / str(at), at, partial(move, source, destination))
        if not is_fetchable(source):
            assert (destination / "images" / "1.png").read_text() == "picture", at
        move(source, destination)
        assert (destination / "log.txt").read_text() == "begun", at
        assert (destination / "images" / "1.png").read_text() == "picture", at
        assert (os.listdir(source.parent), os.listdir(destination.parent)) == ([], ["fox"]), at
    assert count > 10


def test_what_lies_at_the_other_place_already_is_not_taken_for_the_copy(tmp_path: Path) -> None:
    source, destination = tmp_path / "runs" / "fox", tmp_path / "trash" / "fox"
    source.mkdir(parents=True)
    destination.mkdir(parents=True)
    (source / "log.txt").write_text("begun")
    with two_disks(), pytest.raises(VocableError):
        move_folder(source, destination, threading.Event())
    assert (source / "log.txt").read_text() == "begun"


@pytest.mark.parametrize("kept", ["folder", "leaving"])
async def test_a_deletion_that_was_killed_is_completed_by_the_next_service(workspace: Workspace, kept: str) -> None:
    async with serving(workspace) as running:
        run = await finish(running)
        deleted = await running.client.delete_run(run.id)
    folder = Path(run.folder)
    os.rename(deleted.folder, folder if kept == "folder" else folder.with_name(f".{folder.name}.leaving"))
    async with serving(workspace) as running:
        async with asyncio.timeout(PATIENCE_S):
            while log_of(deleted.folder) != "begun":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert os.listdir(folder.parent) == []


async def test_a_restoring_that_was_killed_is_completed_by_the_next_service(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run = await finish(running)
        deleted = await running.client.delete_run(run.id)
        await running.client.restore_run(run.id)
    os.rename(run.folder, deleted.folder)
    async with serving(workspace):
        async with asyncio.timeout(PATIENCE_S):
            while log_of(run.folder) != "begun":  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_run_whose_folder_was_emptied_from_the_trash_cannot_come_back(running: Running) -> None:
    run = await finish(running)
    shutil.rmtree((await running.client.delete_run(run.id)).folder)
    assert await code_of(running.client.restore_run(run.id)) == "file.absent"


async def test_a_run_whose_folder_never_reached_the_trash_comes_back(running: Running) -> None:
    """As when everything was killed between the history and the move."""
    run = await finish(running)
    os.rename((await running.client.delete_run(run.id)).folder, run.folder)
    assert (await running.client.restore_run(run.id)).folder == run.folder
    assert log_of(run.folder) == "begun"
