"""Which workspace, which socket, which settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.paths import SOCKET_PATH_BYTES, Workspace, find_socket, find_workspace, folder_fault, socket_path
from daemon.settings import read_settings
from engine.errors import VocableError


def test_the_option_wins_over_the_environment_over_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "embeddings").mkdir()
    environ = {"VOCABLE_WORKSPACE": str(tmp_path / "from environment")}
    assert find_workspace("here", environ, tmp_path).root == tmp_path / "here"
    assert find_workspace(None, environ, tmp_path).root == tmp_path / "from environment"
    assert find_workspace(None, {}, tmp_path).root == tmp_path


@pytest.mark.parametrize("mark", ["vocable.toml", "embeddings"])
def test_a_folder_is_a_workspace_by_its_settings_or_its_embeddings(tmp_path: Path, mark: str) -> None:
    home = find_workspace(None, {}, tmp_path).root
    assert home != tmp_path
    if mark == "embeddings":
        (tmp_path / mark).mkdir()
    else:
        (tmp_path / mark).touch()
    assert find_workspace(None, {}, tmp_path).root == tmp_path


def test_a_dataset_with_a_recipe_belongs_to_the_workspace_around_it(tmp_path: Path) -> None:
    dataset = tmp_path / "datasets" / "fox"
    dataset.mkdir(parents=True)
    (tmp_path / "embeddings").mkdir()
    (dataset / "vocable.toml").touch()
    assert find_workspace(None, {}, dataset).root == tmp_path
    (dataset / "embeddings").mkdir()
    assert find_workspace(None, {}, dataset).root == dataset


def test_a_workspace_is_made_on_demand_with_a_private_state_folder(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "deep" / "down")
    workspace.create()
    workspace.state.chmod(0o755)
    workspace.create()
    assert workspace.embeddings.is_dir()
    assert folder_fault(workspace.state) == ""


def test_a_workspace_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VocableError, match="cannot be used") as caught:
        Workspace(tmp_path / "file").create()
    assert caught.value.code == "workspace.unusable"


def test_the_socket_lies_in_the_workspace_unless_its_path_is_too_long(tmp_path: Path) -> None:
    assert socket_path(Workspace(tmp_path), {}) == tmp_path / "state" / "vocable.sock"
    deep = Workspace(tmp_path / ("x" * 100))
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    short = socket_path(deep, runtime)
    assert short.parent == tmp_path / "vocable"
    assert socket_path(deep, runtime) == short
    assert socket_path(deep, {}).parent == Path(f"/tmp/vocable-{os.getuid()}")
    assert len(os.fsencode(short)) <= SOCKET_PATH_BYTES
    assert socket_path(Workspace(tmp_path / ("y" * 100)), runtime) != short


def test_a_folder_that_others_can_enter_is_no_place_for_a_socket(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    assert "entered by others" in folder_fault(tmp_path / "open")
    assert "not a folder" in folder_fault(tmp_path / "link")


def test_a_client_finds_a_socket_in_the_workspace_without_looking_elsewhere(tmp_path: Path) -> None:
    assert find_socket(Workspace(tmp_path), {}) == tmp_path / "state" / "vocable.sock"


def test_missing_settings_are_the_defaults_and_given_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "vocable.toml"
    assert read_settings(path).service.idle_unload_s == 600
    path.write_text('[service]\nidle_unload_s = 30\n[paths]\nmodels = ["/data/models"]\n')
    settings = read_settings(path)
    assert (settings.service.idle_unload_s, settings.paths.models) == (30, ["/data/models"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[service]\nidle_unload = 30", "service.idle_unload is not known; did you mean service.idle_unload_s?"),
        ("[sevice]", "sevice is not known; did you mean service?"),
        ("[service]\nidle_unload_s = 0", "service.idle_unload_s"),
        ("[service]\nidle_unload_s = nan", "service.idle_unload_s"),
        ("[paths]\nmodels = 3", "paths.models"),
        ("[service", "it is not TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "vocable.toml"
    path.write_text(text)
    with pytest.raises(VocableError) as caught:
        read_settings(path)
    assert caught.value.code == "settings.invalid"
    assert reason in caught.value.title
