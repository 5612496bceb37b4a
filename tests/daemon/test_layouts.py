from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.layouts import all_folders, find_folder_of
from daemon.paths import Workspace
from engine.models.catalog import find_model, list_models


@pytest.mark.parametrize("checkpoints", ["models/Stable-diffusion", "models/checkpoints"])
def test_models_of_an_installation_are_used_where_they_are(checkpoints: str, tmp_path: Path) -> None:
    root = tmp_path / "installation"
    (root / checkpoints).mkdir(parents=True)
    (root / checkpoints / "mine").symlink_to(find_model("starter", []).path)
    folders = all_folders(tmp_path, tmp_path / "models", "models", ["installation"])
    assert folders == [tmp_path / "models", root / checkpoints]
    assert [model.name for model in list_models(folders)] == ["starter", "mine"]
    assert find_folder_of("hypernetworks", root) == root / "models/hypernetworks"


def test_other_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert all_folders(tmp_path, tmp_path / "own", "models", ["models", "/far", "~/x"]) == [
        tmp_path / "own",
        tmp_path / "models",
        Path("/far"),
        Path("~/x").expanduser(),
    ]


def test_runs_may_lie_elsewhere(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.runs == tmp_path / "runs"
    assert replace(workspace, moved_runs="big/runs").runs == tmp_path / "big/runs"
    assert replace(workspace, moved_runs="/disk").runs == Path("/disk")
