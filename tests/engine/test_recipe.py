from __future__ import annotations

from typing import Any

import pytest

from engine.errors import RecipeError
from engine.recipe import build_recipe, format_recipe, iter_fields, parse_recipe, set_field

LEAST: dict[str, Any] = {"name": "mia", "data": {"folder": "pictures"}}


def faults(values: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        build_recipe(values)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_a_name_and_a_folder_make_a_recipe() -> None:
    recipe = build_recipe(LEAST)
    assert (recipe.model, recipe.train.batch_size, recipe.data.template) == ("starter", 4, "subject_filewords")


def test_a_recipe_survives_the_way_through_its_file() -> None:
    recipe = build_recipe({**LEAST, "name": "Mia Größe 2", "preview": {"prompt": 'say "hi"\nthere \\o/', "width": 96}})
    assert parse_recipe(format_recipe(recipe)) == recipe


def test_the_file_explains_each_field() -> None:
    text = format_recipe(build_recipe(LEAST)) + format_recipe(build_recipe({**LEAST, "kind": "hypernetwork"}))
    assert all(description in text for path, description, _ in iter_fields() if not path.endswith(("width", "height")))


def test_all_faults_are_reported_at_once_with_their_values() -> None:
    found = faults({"name": "a/b", "data": {}, "train": {"learn_rate": "fast", "steps": 0}})
    assert set(found) == {"name", "data.folder", "train.learn_rate", "train.steps"}
    assert "'a/b'" in found["name"]
    assert "fast" in found["train.learn_rate"]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "con", "x" * 65, "a\x1b[31m", "mia ", "a\nb"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    assert "name" in faults({**LEAST, "name": name})


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    found = faults({**LEAST, "train": {"learning_rate": 1}})
    assert "train.learn_rate" in found["train.learning_rate"]


def test_a_learning_rate_may_be_a_number() -> None:
    assert build_recipe({**LEAST, "train": {"learn_rate": 0.001}}).train.learn_rate == "0.001"


def test_a_regular_expression_that_does_not_compile_is_refused() -> None:
    assert "regular expression" in faults({**LEAST, "data": {"folder": "x", "word_regex": "("}})["data.word_regex"]


def test_text_that_is_not_toml_is_refused_with_its_place() -> None:
    with pytest.raises(RecipeError, match="line 2"):
        parse_recipe("name = 'mia'\n[data\n")


def test_assignments_set_nested_fields() -> None:
    values: dict[str, Any] = {}
    for assignment in ("train.steps=20", "train.learn_rate=0.1:5, 0.2", "name=Mia", "save.embed_in_images=false"):
        set_field(values, assignment)
    assert values == {
        "train": {"steps": 20, "learn_rate": "0.1:5, 0.2"},
        "name": "Mia",
        "save": {"embed_in_images": False},
    }


def test_an_assignment_without_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"group\.key=value"):
        set_field({}, "train.steps")


def test_a_hypernetwork_begins_at_its_own_rate_and_template_unless_told_otherwise() -> None:
    recipe = build_recipe({**LEAST, "kind": "hypernetwork"})
    assert (recipe.train.learn_rate, recipe.data.template) == ("1e-5", "hypernetwork")
    told = build_recipe({**LEAST, "kind": "hypernetwork", "train": {"learn_rate": 0.001}})
    assert told.train.learn_rate == "0.001"
    assert build_recipe(LEAST).train.learn_rate == "0.005"


def test_a_hypernetwork_s_recipe_survives_the_way_through_its_file_without_a_word_s_options() -> None:
    start = {"sizes": "1, 2, 2, 1", "widths": [768, 320], "activation": "mish", "dropout": [0, 0.3, 0, 0]}
    recipe = build_recipe({**LEAST, "kind": "hypernetwork", "start": start})
    assert recipe.start.sizes == (1, 2, 2, 1)
    assert parse_recipe(format_recipe(recipe)) == build_recipe(recipe.model_dump()) == recipe
    assert "init_text" not in format_recipe(recipe)
    assert "sizes" not in format_recipe(build_recipe(LEAST))


def test_options_of_the_other_kind_are_refused_with_every_other_fault() -> None:
    found = faults({**LEAST, "kind": "hypernetwork", "start": {"vectors": 2, "sizes": [1, 2]}})
    assert set(found) == {"start.vectors", "start.sizes"}
    assert "an embedding" in found["start.vectors"]
    assert "a hypernetwork" in faults({**LEAST, "start": {"layer_norm": True}})["start.layer_norm"]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("sizes", [1], "2 to 64"),
        ("sizes", [1, 0, 1], "above 0"),
        ("sizes", [2, 1], "begin and end"),
        ("dropout", [0, 0.5], "2 numbers"),
        ("dropout", [0, 1, 0], "below 1"),
        ("dropout", [0.5, 0, 0], "begin and end with 0"),
        ("widths", [0], "1 to"),
        ("widths", [320, 320], "different"),
        ("activation", "glu", "should be"),
    ],
)
def test_a_structure_that_no_network_can_have_is_refused(field: str, value: object, reason: str) -> None:
    assert reason in faults({**LEAST, "kind": "hypernetwork", "start": {field: value}})[f"start.{field}"]
