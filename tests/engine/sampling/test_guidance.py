"""Prompts of several parts and with schedules, against U-Net calls put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.models.load import Model
from engine.prompt.conditioning import ConditioningCache
from engine.prompt.encode import encode
from engine.prompt.layout import Lexicon, lay_out
from engine.sampling.generate import Picture, PictureRequest, _decode, generate
from engine.sampling.samplers import make_scheduler

GIRL, PINK, BLUE = "portrait of a girl", "pink background", "blue background"
LONG = "smiling " * 80
STEPS = 4

Guided = Callable[[int, Callable[[str], Tensor]], Tensor]


def make(model: Model, prompt: str, negative: str = "ugly", **options: Any) -> Picture:
    settings = {"sampler": "Euler", "steps": STEPS, "cfg_scale": 3.0, "width": 64, "height": 64} | options
    request = PictureRequest(pictures=((prompt, 7),), negative_prompt=negative, **settings)
    [picture] = (item for item in generate(model, request, []) if isinstance(item, Picture))
    return picture


@torch.no_grad()
def by_hand(model: Model, guided: Guided, sampler: str = "Euler") -> Tensor:
    """Sample with a guidance that gets the number of the U-Net's call and what the U-Net predicts of a text."""
    scheduler = make_scheduler(model, sampler, STEPS)
    shape = (1, model.unet.config.in_channels, 64 // model.latent_factor, 64 // model.latent_factor)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(7)) * scheduler.init_noise_sigma
    for call, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)

        def predict(text: str, scaled: Tensor = scaled, timestep: Tensor = timestep) -> Tensor:
            chunks = lay_out(text, Lexicon(model.tokenizer, []))
            return model.unet(scaled, timestep, encoder_hidden_states=encode(model, [chunks], {})).sample

        latents = scheduler.step(guided(call, predict), timestep, latents).prev_sample
    return latents[0]


def check(picture: Picture, model: Model, latents: Tensor) -> None:
    """Equal but for the rounding of batches."""
    expected = _decode(model, latents)
    ours, theirs = (np.asarray(image).astype(int) for image in (picture.image, expected))
    assert np.abs(ours - theirs).max() <= 2


def two_sides(text: str, predict: Callable[[str], Tensor], scale: float = 3.0, negative: str = "ugly") -> Tensor:
    base = predict(negative)
    return base + scale * (predict(text) - base)


def test_parts_are_added_each_with_its_weight(starter: Model) -> None:
    def guided(_: int, predict: Callable[[str], Tensor]) -> Tensor:
        base = predict("ugly")
        return base + 3 * 0.8 * (predict(GIRL) - base) - 3 * 0.3 * (predict(PINK) - base)

    check(make(starter, f"{GIRL} :0.8 AND {PINK} :-0.3"), starter, by_hand(starter, guided))


def test_a_weight_counts_without_guidance_too(starter: Model) -> None:
    def guided(_: int, predict: Callable[[str], Tensor]) -> Tensor:
        return two_sides(GIRL, predict, scale=2.0)

    check(make(starter, f"{GIRL}:2", cfg_scale=1.0), starter, by_hand(starter, guided))


def test_a_long_negative_prompt_does_not_lengthen_the_positive_one(starter: Model) -> None:
    def guided(_: int, predict: Callable[[str], Tensor]) -> Tensor:
        return two_sides(GIRL, predict, negative=LONG)

    check(make(starter, GIRL, LONG), starter, by_hand(starter, guided))


def test_a_short_part_repeats_its_last_vector_beside_a_long_one(starter: Model) -> None:
    @torch.no_grad()
    def text(prompt: str) -> Tensor:
        return encode(starter, [lay_out(prompt, Lexicon(starter.tokenizer, []))], {})

    scheduler = make_scheduler(starter, "Euler", 1)
    short = text(PINK)
    padded = torch.cat([short, short[:, -1:].expand(-1, 77, -1)], dim=1)
    noise = torch.randn(1, starter.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(7))
    timestep = scheduler.timesteps[0]
    latents = noise * scheduler.init_noise_sigma
    scaled = scheduler.scale_model_input(latents, timestep)
    with torch.no_grad():
        base, long, pink = (
            starter.unet(scaled, timestep, encoder_hidden_states=states).sample
            for states in (text("ugly"), text(LONG), padded)
        )
    guided = base + 3 * (long - base) + 3 * (pink - base)
    expected = scheduler.step(guided, timestep, latents).prev_sample[0]
    check(make(starter, f"{LONG} AND {PINK}", steps=1), starter, expected)


# What plays at each call of the U-Net: webui.md 3.3, and without `compat` what the text says.
SWITCHES = [
    ("[pink background:blue background:0.5]", "", "Euler", [PINK, PINK, BLUE, BLUE]),
    ("[pink background:blue background:0.5]", "webui", "Euler", [PINK, PINK, PINK, BLUE]),
    ("[pink background|blue background]", "", "Euler", [PINK, BLUE, PINK, BLUE]),
    ("[pink background|blue background]", "webui", "Euler", [PINK, PINK, BLUE, PINK]),
    ("[pink background:blue background:2]", "", "Heun", [PINK, PINK, PINK, PINK, BLUE, BLUE, BLUE]),
    ("[pink background:blue background:2]", "webui", "Heun", [PINK, PINK, PINK, BLUE, BLUE, BLUE, BLUE]),
    ("[pink background:blue background:0.5]", "webui", "Heun", [PINK, PINK, PINK, PINK, PINK, BLUE, BLUE]),
]


@pytest.mark.parametrize(("prompt", "compat", "sampler", "texts"), SWITCHES)
def test_prompts_switch_at_the_step_that_they_name(
    starter: Model, prompt: str, compat: str, sampler: str, texts: list[str]
) -> None:
    assert len(make_scheduler(starter, sampler, STEPS).timesteps) == len(texts)
    picture = make(starter, prompt, sampler=sampler, compat=compat)
    check(picture, starter, by_hand(starter, lambda call, predict: two_sides(texts[call], predict), sampler))


def test_negative_prompts_switch_too(starter: Model) -> None:
    def guided(call: int, predict: Callable[[str], Tensor]) -> Tensor:
        return two_sides(GIRL, predict, negative=PINK if call < 1 else BLUE)

    check(make(starter, GIRL, "[pink background:blue background:1]"), starter, by_hand(starter, guided))


def test_every_text_is_encoded_once_for_all_steps_and_pictures(starter: Model) -> None:
    passes: list[int] = []
    hook = starter.text_encoder.register_forward_pre_hook(
        lambda _, __, options: passes.append(len(options["input_ids"])), with_kwargs=True
    )
    prompt = f"[{PINK}|{BLUE}] AND {GIRL}"
    request = PictureRequest(((prompt, 1), (prompt, 2), (GIRL, 3)), "", "Euler", 4, 3.0, 64, 64)
    with hook:
        list(generate(replace(starter, conditioning=ConditioningCache()), request, []))
    assert passes == [2, 1, 1]


def test_more_parts_than_a_batch_holds_are_predicted_in_turns(starter: Model) -> None:
    prompt = " AND ".join([f"{GIRL}:0.25"] * 4)
    whole = make(starter, prompt)
    request = PictureRequest(((prompt, 7),), "ugly", "Euler", STEPS, 3.0, 64, 64)
    [parted] = (item for item in generate(starter, request, [], batch_size=1) if isinstance(item, Picture))
    check(parted, starter, by_hand(starter, lambda _, predict: two_sides(GIRL, predict)))
    check(whole, starter, by_hand(starter, lambda _, predict: two_sides(GIRL, predict)))
