"""Folders dropped into datasets/ of a real service that bring their recipe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from daemon import datasets, folders
from daemon.datasets import REASON, RECIPE
from daemon.paths import Workspace
from engine.errors import VocableError
from tests.daemon.conftest import Running, serving
from tests.daemon.test_inbox import QUICK, fact, names, outcome, until_problem, until_runs

BARE = 'model = "tiny"\n[train]\nsteps = 100\n'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "TIMING", QUICK)
    monkeypatch.setattr(datasets, "QUIET_S", 0.1)
    monkeypatch.setattr(datasets, "RETRY_S", (0.05, 0.1))


def fill(folder: Path, text: str = BARE, pictures: int = 1) -> Path:
    folder.mkdir()
    (folder / RECIPE).write_text(text)
    for number in range(pictures):
        (folder / f"{number}.png").write_bytes(b"nothing decodes this before the worker")
    return folder / RECIPE


async def test_a_folder_with_a_recipe_is_trained_under_its_own_name(running: Running, workspace: Workspace) -> None:
    folder = workspace.datasets / "red fox"
    told = await outcome(running, folder / RECIPE, lambda: fill(folder))
    run = await running.client.run(told["run"])
    assert (told["outcome"], run.name, run.recipe["data"]["folder"]) == ("queued", "red fox", str(folder))
    assert names(folder) == {RECIPE, "0.png"}


async def test_a_folder_that_is_moved_in_is_trained(running: Running, workspace: Workspace, tmp_path: Path) -> None:
    fill(tmp_path / "fox")
    path = workspace.datasets / "fox" / RECIPE
    told = await outcome(running, path, lambda: shutil.move(tmp_path / "fox", workspace.datasets))
    assert told["outcome"] == "queued"


async def test_what_the_recipe_says_goes_before_the_folder(running: Running, workspace: Workspace) -> None:
    text = 'name = "own"\n' + BARE.replace("[train]", '[data]\nfolder = "faces"\ntemplate = "./t.txt"\n[train]')
    folder = workspace.datasets / "fox"

    def drop() -> None:
        fill(folder, text)
        (folder / "t.txt").write_text("a [name]")

    run = await running.client.run((await outcome(running, folder / RECIPE, drop))["run"])
    assert (run.name, run.recipe["data"]["folder"]) == ("own", "faces")
    assert run.recipe["data"]["template"] == str(folder / "t.txt")


async def test_each_content_of_a_recipe_is_queued_once_also_over_restarts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace.datasets / "fox" / RECIPE
    async with serving(workspace) as running:
        await outcome(running, path, lambda: fill(path.parent))
    # An idempotency key is forgotten after a week; the folder's own memory is not.
    monkeypatch.setattr("daemon.history.REQUEST_LIFE_S", -1000)
    async with serving(workspace) as running:
        (path.parent / "more.png").write_bytes(b"more")
        other = workspace.datasets / "owl" / RECIPE
        await outcome(running, other, lambda: fill(other.parent))
        assert sorted(run.name for run in await running.client.runs()) == ["fox", "owl"]
        assert names(path.parent) == {RECIPE, "0.png", "more.png"}

        told = await outcome(running, path, lambda: path.write_text('name = "fox2"\n' + BARE))
        assert told["outcome"] == "queued"
    async with serving(workspace) as running:
        assert len(await running.client.runs()) == 3


async def test_a_recipe_queued_just_before_a_kill_is_queued_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace.datasets / "fox" / RECIPE

    def die(*_: Any) -> None:
        raise VocableError("disk.write", "It was killed before it was remembered.")

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "write_atomically", die)
        async with serving(workspace) as running:
            await fact(running, "problem", lambda data: "killed" in data["problem"], lambda: fill(path.parent))
            (before,) = await running.client.runs()
    async with serving(workspace) as running:
        other = workspace.datasets / "owl" / RECIPE
        await outcome(running, other, lambda: fill(other.parent))
        runs = {run.name: run.id for run in await running.client.runs()}
        assert runs == {"fox": before.id, "owl": runs["owl"]}
    assert '"fox"' in (workspace.state / "datasets.json").read_text()


async def test_a_refused_recipe_says_why_and_is_tried_again_when_its_folder_changes(
    running: Running, workspace: Workspace
) -> None:
    folder = workspace.datasets / "fox"
    told = await outcome(running, folder / RECIPE, lambda: fill(folder, BARE + "step = 3\n", pictures=0))
    assert (told["outcome"], told["code"]) == ("refused", "recipe.invalid")
    assert "train.step: is not known" in (folder / REASON).read_text()

    await outcome(running, folder / RECIPE, lambda: (folder / RECIPE).write_text(BARE))
    assert "holds no pictures" in (folder / REASON).read_text()

    told = await outcome(running, folder / RECIPE, lambda: (folder / "0.png").write_bytes(b"picture"))
    assert told["outcome"] == "queued"
    assert names(folder) == {RECIPE, "0.png"}


async def test_a_folder_is_not_trained_while_something_hidden_in_it_still_grows(
    running: Running, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.datasets / "fox"
    upload, looks = folder / ".1.png.Xyz", []
    look_at = datasets._look_at

    def grow(folder: Path) -> tuple[int, int]:
        """Between any two looks the upload goes on, until its tenth part."""
        if upload.exists():
            with upload.open("ab") as file:
                file.write(b"part")
            looks.append(upload.stat().st_size)
            if len(looks) == 10:
                upload.rename(folder / "1.png")
        return look_at(folder)

    monkeypatch.setattr(datasets, "_look_at", grow)

    def drop() -> None:
        fill(folder)
        upload.write_bytes(b"part")

    await outcome(running, folder / RECIPE, drop)
    assert (folder / "1.png").stat().st_size == len(b"part") * 11


async def test_recipes_elsewhere_and_links_are_not_taken(
    running: Running, workspace: Workspace, tmp_path: Path
) -> None:
    (workspace.datasets / RECIPE).write_text(BARE)
    fill(workspace.datasets / "faces" / "deeper")
    link, path = workspace.datasets / "faces" / RECIPE, workspace.datasets / "fox" / RECIPE
    told = await outcome(running, link, lambda: link.symlink_to(fill(tmp_path / "secret")))
    assert told["code"] == "file.kind"
    await outcome(running, path, lambda: fill(path.parent))
    assert [run.name for run in await running.client.runs()] == ["fox"]


async def test_without_its_memory_nothing_is_trained_and_the_service_says_so(workspace: Workspace) -> None:
    (workspace.state / "datasets.json").write_text("[broken")
    fill(workspace.datasets / "fox")
    async with serving(workspace) as running:
        await until_problem(running, "datasets.json")
        assert await running.client.runs() == []
        assert names(workspace.datasets / "fox") == {RECIPE, "0.png"}
    (workspace.state / "datasets.json").unlink()
    async with serving(workspace) as running:
        await until_runs(running, 1)
