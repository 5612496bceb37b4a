from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from diffusers import DDPMScheduler

from engine.errors import VocableError
from engine.models.load import Model
from engine.recipe import Sampler
from engine.sampling.samplers import SAMPLERS, make_scheduler

STABLE_DIFFUSION_1 = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def with_noise(model: Model, config: dict[str, object]) -> Model:
    noise = DDPMScheduler.from_config(config)
    return replace(
        model,
        scheduler_config=config,
        alphas_cumprod=noise.alphas_cumprod,
        prediction_type=noise.config.prediction_type,
    )


def test_the_table_has_the_samplers_of_the_recipe() -> None:
    assert tuple(SAMPLERS) == get_args(Sampler)


def test_an_unknown_sampler_is_refused_with_the_known_ones(starter: Model) -> None:
    with pytest.raises(VocableError, match=r"'PLMS'.*Euler a") as caught:
        make_scheduler(starter, "PLMS", 20)
    assert caught.value.code == "sampler.unknown"


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 20, 61, 103, 244, 500])
def test_any_number_of_steps_begins_at_pure_noise_and_ends_clean(starter: Model, name: str, steps: int) -> None:
    scheduler = make_scheduler(starter, name, steps)
    assert len(scheduler.timesteps) == (2 * steps - 1 if name == "Heun" else steps)
    assert scheduler.timesteps[0] == 999
    assert scheduler.timesteps.min() >= 0
    if name != "DDIM":
        assert len(scheduler.sigmas) == len(scheduler.timesteps) + 1
        assert scheduler.sigmas[-1] == 0


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("prediction", "trained_to_no_signal"), [("epsilon", False), ("v_prediction", False), ("v_prediction", True)]
)
def test_a_perfect_network_is_followed_to_the_clean_latents(
    starter: Model, name: str, prediction: str, trained_to_no_signal: bool
) -> None:
    model = with_noise(
        starter,
        STABLE_DIFFUSION_1 | {"prediction_type": prediction, "rescale_betas_zero_snr": trained_to_no_signal},
    )
    clean = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4)
    scheduler = make_scheduler(model, name, 30)
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(clean.shape, generator=generator)
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, timestep)
        signal = torch.as_tensor(model.alphas_cumprod)[int(timestep)].clamp(min=2.0**-24)
        estimate = (seen - signal.sqrt() * clean) / (1 - signal).sqrt()
        output = estimate if prediction == "epsilon" else signal.sqrt() * estimate - (1 - signal).sqrt() * clean
        options = {"generator": generator} if name == "Euler a" else {}
        latents = scheduler.step(output, timestep, latents, **options).prev_sample
    assert torch.isfinite(latents).all()
    torch.testing.assert_close(latents, clean, atol=0.05, rtol=0)


def test_models_that_do_not_ask_for_trailing_steps_get_the_customary_ones(starter: Model) -> None:
    model = with_noise(starter, STABLE_DIFFUSION_1)
    assert make_scheduler(model, "Euler", 3).timesteps.tolist() == [999, 499.5, 0]
    assert make_scheduler(model, "DDIM", 4).timesteps.tolist() == [751, 501, 251, 1]


def test_karras_takes_other_noise_levels_between_the_same_ends(starter: Model) -> None:
    plain, karras = (make_scheduler(starter, name, 10).sigmas for name in ("DPM++ 2M", "DPM++ 2M Karras"))
    assert torch.isclose(plain[0], karras[0], rtol=1e-3)
    assert (karras[1:-1] - plain[1:-1]).abs().max() > 1
