"""Runs that are deleted and taken back: nothing is lost, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from daemon.paths import Workspace
from daemon.protocol.runs import RunView
from engine.errors import VocableError
from tests.daemon.conftest import Running, serving


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
    assert (await anext(stream)).type == "hello"
    removed, back = await anext(stream), await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert (removed.topic, removed.data, back.topic, back.data["id"]) == ("run.removed", {"id": run.id}, "run", run.id)


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


async def test_a_trash_on_another_disk_takes_a_whole_copy(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    run, rename = await finish(running), os.rename

    def cross(source: Path, destination: Path) -> None:
        if not source.name.startswith("."):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, destination)

    monkeypatch.setattr("daemon.trash.os.rename", cross)
    deleted = await running.client.delete_run(run.id)
    assert os.listdir(Path(deleted.folder).parent) == [Path(deleted.folder).name]
    assert log_of(deleted.folder) == "begun"
    assert log_of(run.folder) == ""


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
