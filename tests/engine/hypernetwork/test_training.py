"""Runs that train a hypernetwork: the same loop as for words, exact after every interruption, and guarded."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import VocableError
from engine.events import CopySaved, Ended, PreviewSaved, Progress, Warned
from engine.hypernetwork.network_file import HypernetworkFile, list_tensors
from engine.hypernetwork.read import read_hypernetwork
from engine.models.load import Model
from engine.prompt.encode import encode, encode_prompts
from engine.prompt.layout import Lexicon, lay_out
from engine.training import network as trained_network
from engine.training.job import Control, TrainingJob
from engine.training.network import make_encoder
from engine.training.product import values_of, with_values
from engine.training.report import SETTLED, SKIPPED_IN_ROW, Reading, Tally
from tests.engine.hypernetwork.networks import make_file
from tests.engine.hypernetwork.runs import TABLE, build_job
from tests.engine.training.conftest import copy_pictures, of_kind, run_to_end, start

MakeJob = Callable[..., TrainingJob]


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latents")


@pytest.fixture
def make_job(tmp_path: Path, latents: Path) -> MakeJob:
    pictures = copy_pictures(tmp_path / "pictures")
    return lambda run="run", **settings: replace(build_job(tmp_path, pictures, run, **settings), latents=latents)


def read(path: Path) -> HypernetworkFile:
    return read_hypernetwork(path.read_bytes(), path.stem)


def result(job: TrainingJob) -> tuple[bytes, str]:
    return values_of(read(job.destination)).tobytes(), (job.folder / TABLE).read_text()


def test_a_run_that_was_killed_or_paused_ends_like_one_that_was_not(starter: Model, make_job: MakeJob) -> None:
    straight, killed, paused = (make_job(run, train__steps=4) for run in ("straight", "killed", "paused"))
    run_to_end(starter, straight)
    with closing(start(starter, killed)) as events:  # type: ignore[type-var]
        next(event for event in events if isinstance(event, Progress) and event.step == 3)
    run_to_end(starter, killed)
    control = Control()
    for event in start(starter, paused, control):
        if isinstance(event, Progress) and event.step == 3:
            control.ask = "pause"
    run_to_end(starter, paused)
    assert result(killed) == result(straight)
    assert result(paused) == result(straight)


def test_previews_and_copies_change_no_number_and_show_the_network(starter: Model, make_job: MakeJob) -> None:
    plain, shown = make_job("plain"), make_job("shown", save__images_every=3, save__every=3)
    run_to_end(starter, plain)
    events = run_to_end(starter, shown)
    assert result(shown) == result(plain)
    assert not of_kind(events, Warned)
    previews = of_kind(events, PreviewSaved)
    assert [preview.step for preview in previews] == [3, 6]
    assert all(preview.prompt.endswith("<hypernet:ink:1>") for preview in previews)
    copies = [Path(copy.path) for copy in of_kind(events, CopySaved)]
    assert copies == [shown.folder / "hypernetworks" / f"ink-{step}.safetensors" for step in (3, 6)]
    assert values_of(read(copies[1])).tobytes() == result(shown)[0]
    assert read(copies[0]).step == 3


def test_a_preview_s_own_tag_sets_the_strength(starter: Model, make_job: MakeJob) -> None:
    job = make_job(save__images_every=6, preview__prompt="a girl <hypernet:INK:0.25>")
    assert of_kind(run_to_end(starter, job), PreviewSaved)[0].prompt == "a girl <hypernet:INK:0.25>"


def test_the_file_says_where_it_comes_from_and_the_settings_are_webui_s(starter: Model, make_job: MakeJob) -> None:
    job = make_job()
    events = run_to_end(starter, job)
    assert of_kind(events, Ended) == [Ended("finished", 6, str(job.destination))]
    network = read(job.destination)
    assert (network.name, network.step, network.model_hash) == ("ink", 6, starter.entry.hash)
    assert 'kind = "hypernetwork"' in network.metadata["vocable.recipe"]
    assert "vocable.init_text" not in network.metadata
    settings = json.loads((job.folder / "settings.json").read_bytes())
    assert (settings["hypernetwork_name"], settings["layer_structure"]) == ("ink", [1, 2, 1])
    assert not {"embedding_name", "num_vectors_per_token"} & set(settings)


def test_every_module_learns_and_the_model_stays_as_it_was(starter: Model, make_job: MakeJob) -> None:
    before = {name: value.clone() for name, value in starter.unet.state_dict().items()}
    job = make_job()
    run_to_end(starter, job)
    trained = dict(list_tensors(read(job.destination)))
    again = make_job("untrained", train__steps=1, train__learn_rate="1e-30")
    run_to_end(starter, again)
    begun = dict(list_tensors(read(again.destination)))
    assert all(not np.array_equal(trained[key], begun[key]) for key in trained if key.endswith("weight"))
    assert all(torch.equal(value, before[name]) for name, value in starter.unet.state_dict().items())
    assert all(not module._forward_pre_hooks for module in starter.unet.modules())


def test_computing_the_unet_twice_to_save_memory_changes_no_number(starter: Model, make_job: MakeJob) -> None:
    kept, twice = (make_job(choice, train__checkpointing=choice, train__steps=2) for choice in ("off", "on"))
    run_to_end(starter, kept)
    run_to_end(starter, twice)
    assert result(twice) == result(kept)
    assert all(not module._forward_pre_hooks for module in starter.unet.modules())


def test_each_prompt_is_encoded_once(starter: Model, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = encode_prompts

    def counted(model: Model, chunks: Any, vectors: Any) -> Any:
        asked.append(chunks[0][0].ids)
        return real(model, chunks, vectors)

    monkeypatch.setattr(trained_network, "encode_prompts", counted)
    run_to_end(starter, make_job(train__steps=12))
    assert len(asked) == len(set(asked)) < 24


def test_texts_come_to_the_same_whatever_the_cache_holds_and_beside_longer_ones(starter: Model) -> None:
    texts = ["a girl, smiling", "a girl, " * 60, "", "a girl, smiling"]
    lexicon = Lexicon(starter.tokenizer, [])
    wanted = encode(starter, [lay_out(text, lexicon) for text in texts], {})
    for limit in (None, 0):
        make = make_encoder(starter, limit_bytes=limit)
        first, second = make(texts).hidden, make(texts).hidden
        assert torch.equal(first, second)
        torch.testing.assert_close(first, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(make(texts[:1]).hidden[0], first[0, :77])


def test_a_rate_that_ruins_it_is_stopped_with_the_advice_to_lower_it(starter: Model, make_job: MakeJob) -> None:
    job = make_job(train__learn_rate="1", train__steps=60, train__batch_size=1)
    warnings: list[Warned] = []

    def train() -> None:
        warnings.extend(event for event in start(starter, job) if isinstance(event, Warned))

    with pytest.raises(VocableError, match=r"Lower train\.learn_rate") as caught:
        train()
    assert caught.value.code == "training.diverged"
    assert "times what it is added to" in caught.value.title
    assert [warning.code for warning in warnings] == ["training.rolled_back"] * 2
    assert "0.25 times the learning rate" in warnings[1].title
    assert not job.destination.exists()


def reading(step: int, loss: float | None, growth: float | None) -> Reading:
    return Reading(step, 1e-5, loss, moved=True, growth=growth)


def tally(losses: list[float], growth: float | None = 0.5) -> Tally:
    found = Tally()
    for step, loss in enumerate(losses, 1):
        found = found.add(reading(step, loss, growth))
    return found


def test_a_loss_that_stays_far_above_its_best_mean_is_divergence() -> None:
    settled = [0.1, 0.3] * SETTLED
    assert not tally([*settled, *[0.9] * (SKIPPED_IN_ROW - 1)]).diverging
    assert not tally([*settled, *[0.9] * (SKIPPED_IN_ROW - 1), 0.3, *[0.9] * (SKIPPED_IN_ROW - 1)]).diverging
    ruined = tally([*settled, *[0.9] * SKIPPED_IN_ROW])
    assert ruined.diverging
    assert ruined.good_step == len(settled) - 1  # the first such loss shows what the update before it did
    assert "to 0.9 from a mean of 0.195" in ruined.symptom
    back = ruined.rolled_back(0.5, 1)
    assert (back.diverging, back.rate_scale) == (False, 0.5)


def test_updates_left_out_amid_divergence_are_part_of_it() -> None:
    ruined = tally([0.1] * SETTLED).add(reading(SETTLED + 1, 0.1, 11.0)).add(reading(SETTLED + 2, None, None))
    assert not ruined.diverging
    assert ruined.good_step == SETTLED - 1
    for step in range(SETTLED + 3, SETTLED + SKIPPED_IN_ROW + 1):
        ruined = ruined.add(reading(step, 0.1, 11.0))
    assert ruined.diverging
    assert ruined.good_step == SETTLED - 1


def test_a_network_that_is_ruined_from_the_start_goes_back_to_the_start() -> None:
    assert tally([0.2] * SKIPPED_IN_ROW, growth=11.0).good_step == 0


def test_a_word_s_loss_is_not_judged() -> None:
    assert not tally([*[0.2] * 40, *[9.0] * 40], growth=None).diverging


def test_growth_beyond_all_measure_is_divergence_from_the_first_step_on() -> None:
    assert tally([0.2] * SKIPPED_IN_ROW, growth=11.0).diverging
    assert not tally([0.2] * 100, growth=9.0).diverging


def test_all_numbers_of_a_network_are_one_row_and_back() -> None:
    network = make_file((8, 12), layer_norm=True, activation="prelu")
    row = values_of(network)
    assert row.shape == (network.parameters,)
    back = with_values(network, row * 2, 9)
    assert isinstance(back, HypernetworkFile)
    assert back.step == 9
    ours, theirs = dict(list_tensors(network)), dict(list_tensors(back))
    assert all(np.array_equal(theirs[key], ours[key] * 2) for key in ours)
