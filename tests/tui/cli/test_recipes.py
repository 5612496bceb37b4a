"""Recipe file, flags and assignments become one recipe; all their faults are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import RecipeError, VocableError
from engine.recipe import Recipe
from tui.cli.recipes import make_recipe


def make(tmp_path: Path, source: Path | None = None, assignments: tuple[str, ...] = (), **flags: object) -> Recipe:
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return make_recipe(source, named, assignments, cwd=tmp_path, datasets=tmp_path / "workspace" / "datasets")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipes" / "mine.toml"
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_assignments_go_before_flags_and_flags_before_the_file(tmp_path: Path) -> None:
    source = write(tmp_path, 'name = "one"\n[data]\nfolder = "/p"\n[train]\nsteps = 1\nbatch_size = 2\nseed = 3\n')
    recipe = make(tmp_path, source, ("train.steps=30",), train__steps=20, train__batch_size=5, model=None)
    assert (recipe.name, recipe.model) == ("one", "starter")
    assert (recipe.train.steps, recipe.train.batch_size, recipe.train.seed) == (30, 5, 3)


def test_a_relative_folder_of_pictures_starts_at_the_current_folder(tmp_path: Path) -> None:
    assert make(tmp_path, name="a", data__folder="pics").data.folder == str(tmp_path / "pics")


def test_a_folder_of_pictures_may_be_named_as_in_datasets(tmp_path: Path) -> None:
    (tmp_path / "workspace" / "datasets" / "pics").mkdir(parents=True)
    assert make(tmp_path, name="a", data__folder="pics").data.folder == "pics"
    (tmp_path / "pics").mkdir()
    assert make(tmp_path, name="a", data__folder="pics").data.folder == str(tmp_path / "pics")


def test_relative_paths_in_a_recipe_start_at_its_own_folder(tmp_path: Path) -> None:
    source = write(tmp_path, 'name = "a"\nmodel = "../base"\n[data]\nfolder = "pics"\ntemplate = "./t.txt"\n')
    recipe = make(tmp_path, source)
    assert recipe.data.folder == str(tmp_path / "recipes" / "pics")
    assert recipe.data.template == str(tmp_path / "recipes" / "t.txt")
    assert recipe.model == str(tmp_path / "base")


def test_names_of_models_and_templates_stay_names(tmp_path: Path) -> None:
    (tmp_path / "starter").mkdir()
    recipe = make(tmp_path, name="a", data__folder="p", model="starter", data__template="style")
    assert (recipe.model, recipe.data.template) == ("starter", "style")


def test_faults_of_assignments_and_fields_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, None, ("nonsense", "train.learn_rate=fast"), name="a/b", data__folder="p")
    assert [fault.path for fault in caught.value.faults] == ["nonsense", "name", "train.learn_rate"]


def test_a_recipe_that_is_no_toml_names_its_file(tmp_path: Path) -> None:
    source = write(tmp_path, "name = ")
    with pytest.raises(RecipeError, match=r"mine\.toml: is not TOML"):
        make(tmp_path, source)


def test_a_folder_given_as_recipe_leads_to_the_right_flag(tmp_path: Path) -> None:
    with pytest.raises(VocableError, match="--images") as caught:
        make(tmp_path, tmp_path)
    assert caught.value.code == "recipe.unreadable"
