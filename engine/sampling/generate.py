"""Makes pictures from prompts. Called in the worker, for requests and for a run's previews.

A generator that yields after every step, so that the worker can look at its inbox or cancel by closing it. Nothing is
drawn from a global random state: a picture depends on its own prompt and seed, never on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.embedding.shelf import Word
from engine.errors import VocableError
from engine.events import Warned
from engine.hypernetwork.attach import attached
from engine.hypernetwork.shelf import StoredNetwork
from engine.models.load import Model
from engine.sampling.guidance import Guidance
from engine.sampling.infotext import format_parameters
from engine.sampling.orders import Order, Plan, chart, make_batches, make_plan
from engine.sampling.orders import PictureRequest as PictureRequest  # part of this module's face
from engine.sampling.samplers import find_sampler, make_scheduler

_WHOLE_PIXELS = 1536 * 1536
"""Larger pictures are decoded in overlapping tiles: whole, they would take more memory than all the rest."""


@dataclass(frozen=True)
class SamplingStep:
    done: int
    """Steps of all batches so far."""
    total: int


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    prompt: str
    seed: int
    parameters: str
    """Text from which other programs can make the picture again."""


def generate(
    model: Model,
    request: PictureRequest,
    words: Sequence[Word],
    networks: Sequence[StoredNetwork] = (),
    *,
    batch_size: int = 8,
) -> Iterator[Warned | SamplingStep | Picture]:
    """Make the pictures of a request in its order, yielding after each sampling step and each picture.

    What people should know of their prompts is yielded before the first step.

    Args:
        words: what prompts may use; the first of equal names (to the tokenizer) counts.
        networks: hypernetworks that prompts may name; the first of equal names counts.
        batch_size: pictures at a time; only those whose prompts are alike in chunks and parts share a batch.

    Raises:
        VocableError: `sampler.unknown`, `picture.size`, `picture.clip_skip`, `embedding.width`, `embedding.too_long`,
            `hypernetwork.model` or what keeps a word or hypernetwork from being read, before the first step;
            `picture.not_finite` when the model overflows.
    """
    _check_size(model, request)
    plan = make_plan(model, request, words, networks)
    yield from plan.warnings
    batches = make_batches(plan.orders, batch_size)
    done = 0
    for batch in batches:
        sampling = _Sampling(model, plan, batch, rows=2 * batch_size)
        for _ in range(sampling.calls):
            sampling.advance()
            done += 1
            yield SamplingStep(done, sampling.calls * len(batches))
        for order, latents in zip(batch, sampling.latents, strict=True):
            yield Picture(_decode(model, latents), order.prompt, order.seed, _parameters(model, plan, order))


class _Sampling:
    """The way of one batch from noise to latents.

    Gradients are off inside each method and not while `generate` is suspended, when a run may be training.
    """

    @torch.no_grad()
    def __init__(self, model: Model, plan: Plan, orders: Sequence[Order], *, rows: int) -> None:
        request = plan.request
        self.scheduler = make_scheduler(model, request.sampler, request.steps)
        self.calls = len(self.scheduler.timesteps)
        self._index = 0
        self._unet, self._networks = model.unet, plan.chain_of(orders[0])
        generators = [torch.Generator("cpu").manual_seed(order.seed) for order in orders]
        self._options = {"generator": generators} if find_sampler(request.sampler).draws_noise else {}
        parts = {id(part): part for order in orders for part in order.parsed.parts}  # equal prompts share theirs
        courses = {key: chart(model, plan, part, self.calls) for key, part in parts.items()}
        pictures = [[courses[id(part)] for part in order.parsed.parts] for order in orders]
        negative = chart(model, plan, plan.negative.parts[0], self.calls) if orders[0].is_guided else None
        if negative is not None and model.text_encoder_2 is not None and not request.negative_prompt.strip():
            negative = negative.silenced()
        size = (request.width, request.height)
        self._guidance = Guidance(model, pictures, negative, request.cfg_scale, rows, size)
        edges = (request.height // model.latent_factor, request.width // model.latent_factor)
        shape = (1, model.unet.config.out_channels, *edges)
        noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        self.latents = noise.to(model.device) * self.scheduler.init_noise_sigma
        """[B, C, H, W] float32."""

    @torch.no_grad()
    def advance(self) -> None:
        timestep = self.scheduler.timesteps[self._index]
        scaled = self.scheduler.scale_model_input(self.latents, timestep)
        # Only while the model runs: a run may train on it between two calls.
        with attached(self._unet, self._networks):
            predicted = self._guidance.predict(scaled, timestep, self._index)
        self.latents = self.scheduler.step(predicted, timestep, self.latents, **self._options).prev_sample
        self._index += 1


def _check_size(model: Model, request: PictureRequest) -> None:
    factor = model.latent_factor
    if min(request.width, request.height) < factor or request.width % factor or request.height % factor:
        title = f"The model {model.entry.name} cannot make pictures of {request.width}x{request.height} pixels."
        raise VocableError("picture.size", title, f"Both edges must be multiples of {factor}.")


@torch.no_grad()
def _decode(model: Model, latents: Tensor) -> Image.Image:
    """Turn latents [C, H, W] into a picture; one at a time, which bounds the memory that the VAE takes."""
    scaled = (latents[None] / model.scaling_factor).to(dtype=model.vae.dtype, memory_format=torch.channels_last)
    with model.vae_at_hand() as vae:
        vae.use_tiling = scaled.shape[-1] * scaled.shape[-2] * model.latent_factor**2 > _WHOLE_PIXELS
        try:
            pixels = vae.decode(scaled).sample[0].float()
        finally:
            # A run encodes its pictures with the same VAE, and latents must not depend on what was shown before.
            vae.use_tiling = False
    if not torch.isfinite(pixels).all():
        title = f"The model {model.entry.name} gave NaN or infinity instead of a picture."
        raise VocableError("picture.not_finite", title, "Use precision float32 or bfloat16, or other vectors.")
    levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy()))


def _parameters(model: Model, plan: Plan, order: Order) -> str:
    request = plan.request
    return format_parameters(
        prompt=order.prompt,
        negative_prompt=request.negative_prompt,
        sampler=request.sampler,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        seed=order.seed,
        width=request.width,
        height=request.height,
        model=model.entry,
        hashes={name: word.hash for name, word in plan.words_of(order).items()},
        emphasis=request.emphasis,
        clip_skip=plan.clip_skip,
        compat=request.compat,
    )
