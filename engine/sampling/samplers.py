"""The samplers by name: which of diffusers' schedulers, and how each is set up for a model.

Called by `generate`. The names are those of `engine.recipe.Sampler`; this table is their only home.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch

from engine.errors import VocableError
from engine.models.load import Model
from engine.sampling.multistep import LinearMultistep

_SMALLEST_SIGNAL = 2.0**-24
"""Where a model is trained down to no signal at all, the last share of it is raised to this: sigmas stay finite."""


@dataclass(frozen=True)
class Sampler:
    kind: Any
    """A scheduler class of diffusers, or one with the same methods."""
    options: Mapping[str, Any] = field(default_factory=dict)
    spacing: str = "linspace"
    """How timesteps are spread for models that do not ask for trailing ones."""
    schedule: str = ""
    """Name of the noise levels, where they are not the model's own."""
    calls_per_step: int = 1
    draws_noise: bool = False
    """Whether each step adds fresh noise, drawn from its `generator` argument."""


SAMPLERS: dict[str, Sampler] = {
    "Euler a": Sampler(diffusers.EulerAncestralDiscreteScheduler, draws_noise=True),
    "Euler": Sampler(diffusers.EulerDiscreteScheduler),
    "DDIM": Sampler(diffusers.DDIMScheduler, {"clip_sample": False}, spacing="leading"),
    "DPM++ 2M": Sampler(diffusers.DPMSolverMultistepScheduler),
    "DPM++ 2M Karras": Sampler(diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, schedule="Karras"),
    "LMS": Sampler(LinearMultistep),
    "Heun": Sampler(diffusers.HeunDiscreteScheduler, calls_per_step=2),
    "UniPC": Sampler(diffusers.UniPCMultistepScheduler),
}


def find_sampler(name: str) -> Sampler:
    """Look a sampler up.

    Raises:
        VocableError: `sampler.unknown`, with all names.
    """
    if name not in SAMPLERS:
        raise VocableError("sampler.unknown", f"There is no sampler '{name}'.", f"Use one of {', '.join(SAMPLERS)}.")
    return SAMPLERS[name]


def make_scheduler(model: Model, name: str, steps: int) -> Any:
    """A scheduler ready for its first step, on the CPU; one is used for one batch and thrown away.

    Its `timesteps` are the U-Net's calls: `steps` of them, 2 * steps - 1 for Heun.
    """
    sampler = find_sampler(name)
    config = model.scheduler_config
    trailing = config.get("timestep_spacing") == "trailing" or bool(config.get("rescale_betas_zero_snr"))
    with warnings.catch_warnings():
        # diffusers turns tensors into arrays in a way that NumPy 2 deprecates.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler = sampler.kind(
            num_train_timesteps=len(model.alphas_cumprod),
            trained_betas=_betas(model),
            prediction_type=model.prediction_type,
            timestep_spacing="trailing" if trailing else sampler.spacing,
            steps_offset=1,
            **sampler.options,
        )
        scheduler.set_timesteps(steps)
    _drop_surplus(scheduler, (steps - 1) * sampler.calls_per_step + 1)
    if hasattr(scheduler, "set_begin_index"):
        # Else the first step is looked up by its timestep, and of two equal ones the second is taken.
        scheduler.set_begin_index(0)
    return scheduler


def _betas(model: Model) -> list[float]:
    """The training schedule itself, so that no sampler needs to know how a model's configuration spells it."""
    noise: Any = diffusers.DDPMScheduler.from_config(model.scheduler_config)
    betas = noise.betas.double()
    if noise.alphas_cumprod[-1] < _SMALLEST_SIGNAL:
        betas[-1] = 1 - _SMALLEST_SIGNAL / noise.alphas_cumprod[-2].double()
    return [float(beta) for beta in betas]


def _drop_surplus(scheduler: Any, calls: int) -> None:
    """Drop the step at timestep -1 that trailing spacing appends for some numbers of steps (61, 103, ...), where
    diffusers' division of 1000 by them comes out a little short."""
    if len(scheduler.timesteps) == calls:
        return
    scheduler.timesteps = scheduler.timesteps[:calls]
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = torch.cat([scheduler.sigmas[:calls], scheduler.sigmas[-1:]])
    scheduler.num_inference_steps = int(np.ceil(calls / 2)) if scheduler.order == 2 else calls
