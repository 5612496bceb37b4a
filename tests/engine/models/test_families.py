"""Models of SD 1.x, SD 2.x and SDXL, as folder and as single file: the same tensors, pictures and runs."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor

from engine.dataset.captions import read_caption
from engine.dataset.folder import list_pictures
from engine.dataset.latents import LatentCache
from engine.embedding.create import create_embedding
from engine.embedding.read import read_embedding
from engine.models.catalog import read_entry
from engine.models.load import Model
from engine.models.starter.sample import TRAIN_DIR
from engine.preflight import check_recipe
from engine.prompt.layout import Lexicon
from engine.recipe import build_recipe
from engine.sampling.generate import Picture, PictureRequest, generate
from engine.training.batches import BatchMaker
from engine.training.epochs import Sample, make_epochs
from engine.training.job import Control, TrainingJob
from engine.training.loop import train
from engine.training.step import create_learner, predict_with_word, train_step
from tests.engine.models.families import FAMILIES, POOLED, WIDTH, Built

Get = Callable[[str], Built]
Load = Callable[[Path], Model]

SIZE = 16


def networks(model: Model) -> dict[str, torch.nn.Module]:
    found = {"text": model.text_encoder, "text 2": model.text_encoder_2, "unet": model.unet, "vae": model.vae}
    return {name: network for name, network in found.items() if network is not None}


def picture(model: Model, prompt: str, **changes: Any) -> bytes:
    request = {"negative_prompt": "blurred", "sampler": "Euler", "steps": 2, "cfg_scale": 5.0, "emphasis": "No norm"}
    asked = PictureRequest(pictures=((prompt, 3),), width=SIZE, height=SIZE, **(request | changes))
    return next(item.image.tobytes() for item in generate(model, asked, []) if isinstance(item, Picture))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_tells_its_family_and_widths(built: Get, family: str) -> None:
    entry = read_entry(built(family).file)
    width, split = (WIDTH + POOLED, WIDTH) if family == "sdxl" else (WIDTH, 0)
    assert (entry.name, entry.family, entry.width, entry.split) == (family, family, width, split)
    assert entry.prediction_type == ("v_prediction" if family == "sd2" else "epsilon")
    assert entry.hash == hashlib.sha256(built(family).file.read_bytes()).hexdigest()[:10]
    folder = read_entry(built(family).folder)
    assert (folder.width, folder.split) == (width, split)


@pytest.mark.parametrize("family", FAMILIES)
def test_folder_and_file_load_the_same_tensors_and_make_the_same_pictures(
    built: Get, loaded: Load, family: str
) -> None:
    folder, file = loaded(built(family).folder), loaded(built(family).file)
    assert networks(folder).keys() == networks(file).keys()
    for name, network in networks(folder).items():
        tensors = networks(file)[name].state_dict()
        assert network.state_dict().keys() == tensors.keys()
        assert all(torch.equal(value, tensors[key]) for key, value in network.state_dict().items()), name
    assert folder.scheduler_config == file.scheduler_config
    prompt = "a [red:blue:1] (hat:1.3), " + "very " * 80 + "long"
    assert picture(folder, prompt) == picture(file, prompt)
    assert picture(folder, prompt) != picture(folder, "a dog")


def build_job(root: Path, model: Path, dataset: Path, *, size: int = SIZE, **train_settings: Any) -> TrainingJob:
    recipe = build_recipe(
        {
            "name": "mia",
            "model": str(model),
            "start": {"init_text": "girl hat", "vectors": 2},
            "data": {"folder": str(dataset), "template": "portrait_filewords", "width": size, "height": size},
            "train": {"learn_rate": "0.02", "steps": 4, "batch_size": 2, **train_settings},
            "save": {"every": 0, "images_every": 2, "checkpoint_every": 1},
            "preview": {"steps": 1, "cfg_scale": 2},
        }
    )
    resolved = check_recipe(recipe, models=[], datasets=[], templates=[])
    return TrainingJob(recipe, resolved, root, root.parent / "latents", root / "words" / "mia.safetensors")


def run(model: Model, job: TrainingJob, pause_at: int = 0) -> list[Any]:
    control, seconds = Control(), count(1_700_000_000)
    events = []
    for event in train(model, job, control=control, words=lambda: [], clock=lambda: float(next(seconds))):
        events.append(event)
        if pause_at and control.step == pause_at:
            control.ask = "pause"
    return events


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for picture in sorted(TRAIN_DIR.glob("*.png"))[:3]:
        for path in (picture, picture.with_suffix(".txt")):
            shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_is_taught_previewed_and_resumed_alike_on_folder_and_file(
    built: Get, loaded: Load, dataset: Path, tmp_path: Path, family: str
) -> None:
    straight = build_job(tmp_path / "straight", built(family).folder, dataset)
    run(loaded(built(family).folder), straight)
    broken_off = build_job(tmp_path / "resumed", built(family).file, dataset)
    assert run(loaded(built(family).file), broken_off, pause_at=3)[-1].outcome == "paused"
    assert run(loaded(built(family).file), broken_off)[-1].outcome == "finished"
    words = [read_embedding(job.destination.read_bytes(), "mia") for job in (straight, broken_off)]
    assert np.array_equal(words[0].vectors, words[1].vectors)
    assert words[0].split == loaded(built(family).folder).entry.split
    assert set(words[0].encoders()) == ({"clip_l", "clip_g"} if family == "sdxl" else {"emb_params"})
    pictures = [sorted((job.folder / "images").iterdir()) for job in (straight, broken_off)]
    assert [path.name for path in pictures[0]] == [path.name for path in pictures[1]] != []
    for one, other in zip(*pictures, strict=True):
        assert ImageChops.difference(Image.open(one), Image.open(other)).getbbox() is None


def reference_vectors(model: Model, maker: BatchMaker, start: Tensor, steps: int, learn_rate: float) -> Tensor:
    """The same training, plainly: text encoders whose tables have a row for each vector, plain torch, no hook."""
    first, second = copy.deepcopy(model.text_encoder), copy.deepcopy(model.text_encoder_2)
    encoders = [encoder for encoder in (first, second) if encoder is not None]
    count = encoders[0].config.vocab_size
    leaf = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([leaf], lr=learn_rate, weight_decay=0.0)
    tables = [encoder.get_input_embeddings().weight.data for encoder in encoders]
    split = model.entry.split
    for step in range(steps):
        batch = maker.make(step)
        columns = [leaf] if second is None else [leaf[:, :split], leaf[:, split:]]
        slots = batch.prompts.words["mia"]
        ids = [batch.prompts.ids.clone()] if second is None else [batch.prompts.ids.clone(), batch.prompts.second_ids]
        outputs = []
        for encoder, table, extra, tokens in zip(encoders, tables, columns, ids, strict=True):
            tokens = tokens.clone()
            tokens[slots.rows, slots.columns] = count + torch.arange(len(leaf)).repeat(slots.count)
            embedded = torch.cat([table, extra])[tokens]
            text = getattr(encoder, "text_model", encoder)
            hidden = embedded + text.embeddings.position_embedding(torch.arange(77))
            mask = torch.full((77, 77), float("-inf")).triu(1)[None, None]
            states = [hidden]
            for layer in text.encoder.layers:
                states.append(layer(states[-1], mask))
            outputs.append((states, text.final_layer_norm(states[-1])))
        if second is None:
            predicted = model.unet(batch.noisy, batch.timesteps, encoder_hidden_states=outputs[0][1]).sample
        else:
            ends = (batch.prompts.ids == model.tokenizer.end_id).int().argmax(dim=1)
            pooled = second.text_projection(outputs[1][1][torch.arange(len(ends)), ends])
            hidden = torch.cat([states[-2] for states, _ in outputs], dim=-1)
            # The pictures are square, of 64 pixels, and scaled down to 16.
            added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, SIZE, SIZE]] * len(ends))}
            predicted = model.unet(
                batch.noisy, batch.timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added
            ).sample
        loss = (predicted - batch.target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return leaf.detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_steps_equal_a_plain_training_loop(
    built: Get, loaded: Load, dataset: Path, tmp_path: Path, family: str
) -> None:
    model = loaded(built(family).file)
    recipe_job = build_job(tmp_path / "run", built(family).file, dataset, steps=20)
    latents = LatentCache(tmp_path / "latents", model, width=SIZE, height=SIZE, on_write_error=lambda _: None)
    samples = [Sample(path.name, read_caption(path), latents.encode(path).latents) for path in list_pictures(dataset)]
    lexicon = Lexicon(model.tokenizer, [("mia", 2)])
    maker = BatchMaker(model, "mia", lexicon, make_epochs(samples, batch_size=2, seed=0), recipe_job.resolved.lines)
    start = create_embedding(model, name="mia", init_text="girl hat", vectors=2).vectors
    learner = create_learner(model, start, predict_with_word("mia"), weight_decay=0.0)
    for step in range(20):
        train_step(model, learner, maker.make(step), 0.01)
    plain = reference_vectors(model, maker, torch.from_numpy(start), 20, 0.01)
    assert not torch.allclose(plain, torch.from_numpy(start), atol=0.05)
    torch.testing.assert_close(learner.values.detach(), plain, rtol=0, atol=1e-6)
