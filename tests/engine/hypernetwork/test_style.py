"""A style learnt from portraits of subjects that the model never saw: how far it comes on others, without its name."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine.hypernetwork.read import read_hypernetwork
from engine.hypernetwork.shelf import StoredNetwork, shelve
from engine.models.load import Model
from engine.models.starter.attributes import Style, vary
from engine.models.starter.portraits import character, description, draw, random_pose
from engine.training.evaluate import evaluate
from tests.engine.hypernetwork.runs import build_job
from tests.engine.training.conftest import run_to_end


def draw_set(folder: Path, characters: Sequence[int], style: Style) -> Path:
    """Characters, which training of the model never showed, in a style; captions say everything but the style."""
    folder.mkdir(parents=True)
    rng = random.Random(f"style {folder.name}")
    for number, seed in enumerate(characters):
        portrait = replace(vary(character(seed), rng), style=style)
        draw(portrait, random_pose(rng), 64).save(folder / f"{number:04d}.png")
        caption = f"{description(portrait)}, {portrait.expression}, {portrait.background} background"
        (folder / f"{number:04d}.txt").write_text(caption)
    return folder


def measure(
    model: Model, root: Path, line: str, phrase: str = "", networks: Sequence[StoredNetwork] = (), *, timesteps: int
) -> float:
    """Evaluation loss of the pictures in `unseen`."""
    *_, losses = evaluate(
        model,
        folder=root / "unseen",
        lines=(line,),
        phrases=(phrase,),
        words=(),
        networks=networks,
        width=64,
        height=64,
        seed=1,
        timesteps=timesteps,
        noises=1,
        latents=root / "latents",
    )
    assert isinstance(losses, list)
    return losses[0]


def learn(model: Model, root: Path, style: Style, *, steps: int, rate: str, pictures: int) -> StoredNetwork:
    template = root / "template.txt"
    template.write_text("portrait of [filewords]\n")
    job = build_job(
        root,
        draw_set(root / "seen", range(100, 100 + pictures), style),
        data__template=str(template),
        start__activation="relu",
        start__widths=[],
        start__dropout=[],
        train__steps=steps,
        train__learn_rate=rate,
        train__batch_size=4,
        save__checkpoint_every=100,
    )
    run_to_end(model, job)
    return shelve(read_hypernetwork(job.destination.read_bytes(), "ink"))


def closed_share(model: Model, root: Path, style: Style, learnt: StoredNetwork, *, timesteps: int) -> float:
    """Of the gap between the bare model and the oracle, which is told the style."""
    bare = measure(model, root, "portrait of [filewords]", timesteps=timesteps)
    oracle = measure(model, root, f"{style} of [filewords]", timesteps=timesteps)
    ours, none = (
        measure(model, root, "portrait of [filewords]", f"<hypernet:ink:{strength}>", [learnt], timesteps=timesteps)
        for strength in (1, 0)
    )
    assert none == bare  # multiplier 0 is the bare model, bit for bit
    print(f"{style}: bare {bare:.4f}, oracle {oracle:.4f}, hypernetwork {ours:.4f}")
    return (bare - ours) / (bare - oracle)


def test_ten_steps_tell_the_model_which_style_is_meant(starter: Model, tmp_path: Path) -> None:
    draw_set(tmp_path / "unseen", range(500, 503), "ink drawing")
    learnt = learn(starter, tmp_path, "ink drawing", steps=10, rate="3e-3", pictures=8)
    assert closed_share(starter, tmp_path, "ink drawing", learnt, timesteps=8) >= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("style", ["ink drawing", "pencil sketch"])
def test_a_style_set_closes_the_gap_to_the_oracle(starter: Model, tmp_path: Path, style: Style) -> None:
    """Measured: 0.90 and 0.98."""
    draw_set(tmp_path / "unseen", range(500, 508), style)
    learnt = learn(starter, tmp_path, style, steps=100, rate="1e-3", pictures=24)
    assert closed_share(starter, tmp_path, style, learnt, timesteps=20) >= 0.6
