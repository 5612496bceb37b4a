from __future__ import annotations

import os
from pathlib import Path

import pytest

from tui.widgets.completion import complete_folder, find_images_folder


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A current folder with `cats/old`, `cars`, `.hidden` and a file, and a datasets folder with `fox`."""
    cwd, datasets = tmp_path / "here", tmp_path / "datasets"
    for folder in (cwd / "cats" / "old", cwd / "cars", cwd / ".hidden", datasets / "fox"):
        folder.mkdir(parents=True)
    (cwd / "castle.txt").touch()
    return cwd, datasets


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("c", "cars"),
        ("cat", "cats"),
        ("cats", "cats/"),
        ("cats/", "cats/old"),
        ("cats/o", "cats/old"),
        ("cast", None),
        ("fo", "fox"),
        ("zebra", None),
        ("cats/zebra", None),
        ("", None),
    ],
)
def test_folders_are_completed_as_typed(places: tuple[Path, Path], typed: str, completed: str | None) -> None:
    assert complete_folder(typed, *places) == completed


def test_absolute_paths_are_completed(places: tuple[Path, Path]) -> None:
    cwd, datasets = places
    assert complete_folder(f"{cwd}/cat", Path("/"), datasets) == f"{cwd}/cats"


def test_a_home_stays_as_it_was_typed(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cwd, datasets = places
    monkeypatch.setenv("HOME", str(cwd))
    assert complete_folder("~/cat", Path("/"), datasets) == "~/cats"
    assert find_images_folder("~/cats", Path("/"), datasets) == (str(cwd / "cats"), "")


def test_a_folder_from_here_becomes_absolute_and_a_name_in_datasets_stays_a_name(places: tuple[Path, Path]) -> None:
    cwd, datasets = places
    assert find_images_folder("cats/../cats", cwd, datasets) == (str(cwd / "cats"), "")
    assert find_images_folder("fox", cwd, datasets) == ("fox", "")
    assert find_images_folder("", cwd, datasets) == ("", "")


def test_a_folder_that_is_nowhere_is_said(places: tuple[Path, Path]) -> None:
    assert "there is no folder" in find_images_folder("zebra", *places)[1]
    assert "there is no folder" in find_images_folder("/nowhere/at/all", *places)[1]
    assert "there is no folder" in find_images_folder("castle.txt", *places)[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_unreadable_folder_completes_nothing(places: tuple[Path, Path]) -> None:
    cwd, datasets = places
    (cwd / "cats").chmod(0)
    assert complete_folder("cats/o", cwd, datasets) is None
    (cwd / "cats").chmod(0o700)
