"""`POST /v1/recipes/check`: everything that can be known of a recipe, and no run."""

from __future__ import annotations

import pytest

from engine.errors import RecipeError
from tests.daemon.conftest import Running, recipe


async def test_a_good_recipe_is_described_and_nothing_is_queued(running: Running) -> None:
    found = await running.client.check_recipe(recipe(running.workspace, "gitte"))
    assert (found.name, found.model, found.pictures, found.steps) == ("gitte", "tiny", 1, 100)
    assert found.folder == str(running.workspace.datasets / "faces")
    assert (found.prompts > 0, found.warnings) == (True, [])
    assert await running.client.runs() == []


async def test_a_faulty_recipe_tells_every_fault(running: Running) -> None:
    with pytest.raises(RecipeError) as caught:
        await running.client.check_recipe(recipe(running.workspace, model="none", data={"folder": "nowhere"}))
    assert {fault.path for fault in caught.value.faults} == {"model", "data.folder"}


async def test_a_name_that_is_being_trained_is_warned_of(running: Running) -> None:
    run = await running.train("gitte")
    found = await running.client.check_recipe(recipe(running.workspace, "Gitte"))
    assert [run.id in warning for warning in found.warnings] == [True]
