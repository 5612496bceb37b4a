from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.errors import RecipeError
from engine.preflight import Resolved, check_recipe
from engine.recipe import build_recipe


def check(tmp_path: Path, *, model: str = "starter", **data: Any) -> Resolved:
    recipe = build_recipe({"name": "mia", "model": model, "data": {"folder": "mia", **data}})
    return check_recipe(
        recipe, models=[tmp_path / "models"], datasets=[tmp_path / "datasets"], templates=[tmp_path / "templates"]
    )


def faults(tmp_path: Path, **data: Any) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        check(tmp_path, **data)
    return {fault.path: fault.message for fault in caught.value.faults}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets" / "mia"
    folder.mkdir(parents=True)
    for name in ("10.png", "9.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (tmp_path / "templates").mkdir()
    return folder


def test_everything_that_a_recipe_names_is_looked_up(tmp_path: Path, folder: Path) -> None:
    resolved = check(tmp_path)
    assert resolved.model.name == "starter"
    assert resolved.folder == folder
    assert [path.name for path in resolved.pictures] == ["9.png", "10.png"]
    assert resolved.template.name == "subject_filewords.txt"
    assert all("[name]" in line for line in resolved.lines)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, model="sd-none", folder="max", template="sujet")
    assert list(found) == ["model", "data.folder", "data.template"]
    assert "'sd-none'" in found["model"]
    assert "'max'" in found["data.folder"]
    assert "'sujet'" in found["data.template"]


def test_a_template_line_without_the_name_is_shown_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "templates" / "mine.txt").write_text("a photo of [name]\na photo\n")
    assert "line 2 ('a photo')" in faults(tmp_path, template="mine")["data.template"]


def test_an_empty_folder_is_a_fault_that_says_what_to_do(tmp_path: Path, folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    message = faults(tmp_path)["data.folder"]
    assert str(folder) in message
    assert "holds no pictures" in message
    assert "Put some pictures" in message


def test_a_caption_that_cannot_be_read_is_a_fault_with_its_name(tmp_path: Path, folder: Path) -> None:
    (folder / "9.txt").write_bytes(b"\xff")
    assert "9.txt" in faults(tmp_path)["data.folder"]


def test_pictures_are_counted_without_being_decoded(tmp_path: Path, folder: Path) -> None:
    (folder / "11.png").write_bytes(b"no picture")
    assert len(check(tmp_path).pictures) == 3


def test_a_run_that_repeats_its_journal_needs_no_pictures(tmp_path: Path, folder: Path) -> None:
    recipe = build_recipe({"name": "mia", "data": {"folder": "mia"}})
    places = {"models": [], "datasets": [tmp_path / "datasets"], "templates": []}
    shutil.rmtree(folder)
    resolved = check_recipe(recipe, **places, repeats=True)
    assert (resolved.folder, resolved.pictures) == (folder, ())
    with pytest.raises(RecipeError):
        check_recipe(recipe, **places)
