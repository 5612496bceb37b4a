from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.folder import find_folder, list_pictures, natural_key
from engine.errors import VocableError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def names(folder: Path) -> list[str]:
    return [path.name for path in list_pictures(folder)]


def test_pictures_come_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "10.png", "2.png", "1.PNG", "b 3.jpg", "a 12.jpeg", "a 2.webp")
    assert names(tmp_path) == ["1.PNG", "2.png", "10.png", "a 2.webp", "a 12.jpeg", "b 3.jpg"]


def test_names_that_differ_in_case_alone_have_a_fixed_order() -> None:
    assert sorted(["b", "B", "a"], key=natural_key) == ["a", "B", "b"]


def test_hidden_files_captions_and_sub_folders_are_no_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", ".2.png", "1.txt", "notes.pdf")
    (tmp_path / "3.png").mkdir()
    assert names(tmp_path) == ["1.png"]


def test_a_folder_without_pictures_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VocableError) as caught:
        list_pictures(tmp_path)
    assert caught.value.code == "dataset.empty"
    assert ".png" in caught.value.hint


def test_pictures_in_sub_folders_are_pointed_out(tmp_path: Path) -> None:
    touch(tmp_path / "inner", "1.png")
    with pytest.raises(VocableError, match="sub-folders"):
        list_pictures(tmp_path)


def test_a_folder_is_found_by_name_among_the_datasets(tmp_path: Path) -> None:
    touch(tmp_path / "datasets" / "mia")
    assert find_folder("mia", [tmp_path / "other", tmp_path / "datasets"]) == tmp_path / "datasets" / "mia"


def test_a_folder_is_found_by_its_path_and_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = touch(tmp_path / "mia")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_folder(str(folder), []) == find_folder("~/mia", []) == folder


def test_a_missing_folder_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    touch(tmp_path / "mia")
    with pytest.raises(VocableError) as caught:
        find_folder("max", [tmp_path])
    assert caught.value.code == "dataset.missing"
    assert "'max'" in caught.value.title
    assert "mia" in caught.value.hint


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    with pytest.raises(VocableError, match="is a file"):
        find_folder(str(tmp_path / "1.png"), [])
