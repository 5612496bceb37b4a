"""Hypernetworks in prompts: tags chain them with their strengths, for the one picture that names them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import VocableError
from engine.events import Warned
from engine.hypernetwork.attach import list_widths
from engine.hypernetwork.network_file import HypernetworkFile
from engine.hypernetwork.shelf import StoredNetwork, chain_of, fold_shelf, shelve
from engine.models.load import Model
from engine.prompt.tags import take_tags
from engine.sampling.generate import Picture, PictureRequest, SamplingStep, generate
from tests.engine.hypernetwork.networks import make_file


def network(model: Model, name: str, seed: int) -> HypernetworkFile:
    return make_file(list_widths(model.unet), seed=seed, scale=0.05, name=name, model="starter", model_hash="")


@pytest.fixture
def shelf(starter: Model) -> list[StoredNetwork]:
    return [shelve(network(starter, "ink", 1)), shelve(network(starter, "Wash", 2))]


def make(
    model: Model, shelf: list[StoredNetwork], *prompts: str, scale: float = 2.0
) -> tuple[list[NDArray[np.uint8]], list[Warned]]:
    request = PictureRequest(tuple((prompt, 1) for prompt in prompts), "", "DDIM", 1, scale, 32, 32)
    items = list(generate(model, request, [], shelf, batch_size=1))
    pictures = [np.asarray(item.image) for item in items if isinstance(item, Picture)]
    return pictures, [item for item in items if isinstance(item, Warned)]


def test_tags_are_read_in_order_by_any_case_and_with_their_strengths(shelf: list[StoredNetwork]) -> None:
    _, tags = take_tags("<hypernet:wash:0.5> a <hypernet:INK> <lora:x:1><hypernet:ink:-1><hypernet:wash:0><hypernet:y>")
    assert chain_of(tags, fold_shelf(shelf)) == (("Wash", 0.5), ("ink", 1.0), ("ink", -1.0))


def test_each_picture_has_the_hypernetworks_that_it_names_and_no_others(
    starter: Model, shelf: list[StoredNetwork]
) -> None:
    prompts = ("a girl", "a girl<hypernet:ink:1>", "a girl", "a girl<hypernet:ink:0>", "a girl<hypernet:ink:0.5>")
    together, warnings = make(starter, shelf, *prompts)
    assert not warnings
    assert np.array_equal(together[0], together[2])
    assert np.array_equal(together[0], together[3])
    assert len({picture.tobytes() for picture in together}) == 3
    for prompt, picture in zip(prompts, together, strict=True):
        assert np.array_equal(make(starter, shelf, prompt)[0][0], picture)


def test_a_chain_goes_in_the_order_of_the_prompt(starter: Model, shelf: list[StoredNetwork]) -> None:
    one_way, _ = make(starter, shelf, "a girl<hypernet:ink><hypernet:wash>", scale=1)
    other_way, _ = make(starter, shelf, "<hypernet:wash>a girl<hypernet:ink>", scale=1)
    assert not np.array_equal(one_way[0], other_way[0])


def test_names_of_nothing_and_other_models_are_told_of(starter: Model, shelf: list[StoredNetwork]) -> None:
    foreign = shelve(replace(network(starter, "far", 3), model="v1-5", model_hash="0a1b2c3d4e"))
    pictures, warnings = make(starter, [*shelf, foreign], "a girl<hypernet:nobody:1>", "a girl<hypernet:far>", "a girl")
    assert [warning.code for warning in warnings] == ["prompt.unknown_hypernetwork", "prompt.other_model"]
    assert np.array_equal(pictures[0], pictures[2])


def test_only_what_a_prompt_names_is_read_and_only_once(starter: Model, shelf: list[StoredNetwork]) -> None:
    reads: list[str] = []

    def counted(stored: StoredNetwork) -> StoredNetwork:
        return replace(stored, load=lambda: reads.append(stored.name) or stored.load())  # type: ignore[func-returns-value]

    make(starter, [counted(stored) for stored in shelf], "<hypernet:ink> a", "<hypernet:ink:0.5><hypernet:ink:0.5> b")
    assert reads == ["ink"]


def test_between_two_steps_the_model_is_bare(starter: Model, shelf: list[StoredNetwork]) -> None:
    request = PictureRequest((("a girl<hypernet:ink>", 1),), "", "DDIM", 2, 2.0, 32, 32)
    items = generate(starter, request, [], shelf)
    for item in items:
        if isinstance(item, SamplingStep):
            assert all(not module._forward_pre_hooks for module in starter.unet.modules())
    assert isinstance(item, Picture)


def test_sdxl_says_why_it_takes_none(starter: Model, shelf: list[StoredNetwork]) -> None:
    model = replace(starter, entry=replace(starter.entry, family="sdxl"))
    with pytest.raises(VocableError) as caught:
        make(model, shelf, "a girl<hypernet:ink>")
    assert caught.value.code == "hypernetwork.model"
