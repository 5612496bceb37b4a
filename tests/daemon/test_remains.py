"""What killed processes left half done goes; what belongs to anybody stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.paths import Workspace
from daemon.remains import sweep
from daemon.runs import new_run
from engine.files import remove_remains, write_atomically
from engine.recipe import build_recipe
from tests.daemon.conftest import Running, recipe, serving

REMAINS = ".fox.safetensors.0a1b2c3d.tmp"


def leave_remains(*folders: Path) -> list[Path]:
    paths = [folder / REMAINS for folder in folders]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    return paths


def test_what_killed_writers_left_goes_from_the_folders_of_the_service(workspace: Workspace) -> None:
    folders = (workspace.embeddings, workspace.trash, workspace.state / "crashes", workspace.latents / "ab")
    remains = leave_remains(workspace.root, *folders)
    sweep(workspace, [])
    assert [path for path in remains if path.exists()] == []


@pytest.mark.parametrize("name", [".fox.tmp", "fox.0a1b2c3d.tmp", ".fox.0A1B2C3D.tmp", ".fox.0a1b2c3d.tmp~"])
def test_what_only_looks_like_a_temporary_stays(workspace: Workspace, name: str) -> None:
    (workspace.embeddings / name).write_bytes(b"somebody's")
    (workspace.embeddings / REMAINS).mkdir()
    sweep(workspace, [])
    assert sorted(path.name for path in workspace.embeddings.iterdir()) == sorted([name, REMAINS])


def test_what_this_process_is_writing_stays(tmp_path: Path) -> None:
    found: list[Path] = []
    write_atomically(tmp_path / "word", b"whole", verify=lambda data: found.extend(remove_remains(tmp_path)))
    assert (found, (tmp_path / "word").read_bytes()) == ([], b"whole")


async def test_the_folder_of_a_run_that_never_came_to_be_goes_and_others_stay(workspace: Workspace) -> None:
    orphan, strange = workspace.runs / "2026-01-01" / "fox-aaaaaa", workspace.runs / "2026-01-01" / "mine"
    orphan.mkdir(parents=True)
    strange.mkdir()
    (strange / "notes.txt").write_text("mine")
    async with serving(workspace) as running:
        run = await running.train()
        await (await running.crew.worker()).told("train", run=run.id)
        assert not orphan.exists()
        assert (strange / "notes.txt").exists()
        assert run.folder in map(str, workspace.runs.glob("*/*"))


def test_the_folder_of_a_run_that_is_on_its_way_to_the_trash_stays(workspace: Workspace) -> None:
    run = new_run(build_recipe(recipe(workspace)), "aaaaaa", workspace.runs, 1.0, now=1000.0)
    here = Path(run.view.folder)
    here.mkdir(parents=True)
    run.view.folder = str(workspace.trash / "runs" / here.parent.name / here.name)
    sweep(workspace, [run])
    assert here.is_dir()


async def test_what_a_lost_worker_left_is_gone_when_the_next_one_gets_the_run(running: Running) -> None:
    run = await running.client.create_run(recipe(running.workspace))
    first = await running.crew.worker()
    await first.told("train", run=run.id)
    remains = leave_remains(running.workspace.embeddings, Path(run.folder, "images"), Path(run.folder))
    first.die()
    await (await running.crew.worker(2)).told("train", run=run.id)
    assert [path for path in remains if path.exists()] == []


async def test_the_files_of_a_living_worker_are_left_alone(running: Running) -> None:
    run = await running.client.create_run(recipe(running.workspace))
    worker = await running.crew.worker()
    await worker.told("train", run=run.id)
    [temporary] = leave_remains(running.workspace.embeddings)
    worker.step(run.id, 1)
    await running.until(run.id, lambda view: view.step == 1)
    assert temporary.exists()
