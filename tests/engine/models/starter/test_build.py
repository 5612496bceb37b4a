"""The build script on a recipe of seconds: it finishes, what it writes loads, and a stopped build goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from engine.errors import VocableError
from engine.models.starter.build import build, export_newest
from engine.models.starter.build_recipes import Plan, Recipe

TINY = Recipe(
    pictures=48,
    captions_each=2,
    vocabulary=600,
    text_width=32,
    text_layers=1,
    vae_channels=(8, 8, 16),
    vae=Plan(steps=4, minutes=5, batch=4, rate=1e-3, warmup=2, ema=0.9),
    unet_channels=(16, 16, 32),
    unet_attention=(False, False, True),
    unet=Plan(steps=6, minutes=5, batch=4, rate=1e-3, warmup=2, ema=0.9),
    decoder=Plan(steps=3, minutes=5, batch=4, rate=1e-3, warmup=2, ema=0.9),
    sheet_columns=1,
    checked_pictures=2,
)
CPU = torch.device("cpu")


def _entries(work: Path, stage: str) -> list[dict[str, Any]]:
    lines = (work / "build.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["stage"] == stage]


def _weights(work: Path) -> dict[str, torch.Tensor]:
    average = torch.load(work / "unet.pt", weights_only=True)["average"]
    return {f"{name}.{key}": value for name, tensors in average.items() for key, value in tensors.items()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert build(folder / "out", folder / "work", TINY, device=CPU)
    return folder


def test_a_build_writes_a_model_that_diffusers_loads(straight: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(straight / "out", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("portrait of a girl", num_inference_steps=2).images[0]
    assert picture.size == (64, 64)


def test_a_build_leaves_its_log_and_a_sample_sheet_beside_the_weights(straight: Path) -> None:
    entries = [json.loads(line) for line in (straight / "out" / "build.jsonl").read_text().splitlines()]
    assert {entry["stage"] for entry in entries} == {"start", "vae", "unet", "decoder", "export"}
    assert entries[0]["torch"] == torch.__version__
    assert (straight / "out" / "samples.png").stat().st_size > 1000


@pytest.mark.parametrize(("stage", "step"), [("vae", 2), ("unet", 3), ("decoder", 1)])
def test_a_stopped_build_goes_on_where_it_stopped(straight: Path, tmp_path: Path, stage: str, step: int) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    assert not build(out, work, TINY, device=CPU, stop=lambda at, k: at == stage and k == step)
    assert _entries(work, stage)[-1]["step"] == step
    seen: list[int] = []

    def note(at: str, k: int) -> bool:
        if at == stage:
            seen.append(k)
        return False

    assert build(out, work, TINY, device=CPU, resume=True, stop=note)
    assert seen[0] == step
    resumed, whole = _weights(work), _weights(straight / "work")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_an_unfinished_build_can_be_exported_at_any_moment(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    build(out, work, TINY, device=CPU, stop=lambda stage, step: stage == "unet" and step == 2)
    export_newest(out, work)
    StableDiffusionPipeline.from_pretrained(out, local_files_only=True)


def test_exporting_before_there_is_a_model_says_what_to_wait_for(tmp_path: Path) -> None:
    with pytest.raises(VocableError, match="no U-Net yet"):
        export_newest(tmp_path / "out", tmp_path)


def test_a_work_folder_in_use_is_not_overwritten(straight: Path) -> None:
    with pytest.raises(VocableError, match="already"):
        build(straight / "out", straight / "work", TINY, device=CPU)


def test_a_build_is_not_resumed_with_another_recipe(straight: Path) -> None:
    other = replace(TINY, text_width=64)
    with pytest.raises(VocableError, match="another recipe"):
        build(straight / "out", straight / "work", other, device=CPU, resume=True)
