"""Makes pictures from prompts. Called in the worker, for requests and for a run's previews.

A generator that yields after every step, so that the worker can look at its inbox or cancel by closing it. Nothing is
drawn from a global random state: a picture depends on its own prompt and seed, never on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from engine.models.load import Model
from engine.prompt.encode import check_width, encode
from engine.prompt.layout import Chunk, Lexicon, lay_out
from engine.sampling.infotext import format_parameters
from engine.sampling.samplers import find_sampler, make_scheduler


@dataclass(frozen=True)
class PictureRequest:
    pictures: tuple[tuple[str, int], ...]
    """Prompt and seed of each picture."""
    negative_prompt: str
    sampler: str
    steps: int
    cfg_scale: float
    """Guidance scale; at 1 the negative prompt is not used and a step costs half."""
    width: int
    """In pixels, as is height; a multiple of the model's latent factor."""
    height: int


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


@dataclass(frozen=True)
class _Order:
    """One picture to make."""

    prompt: str
    seed: int
    chunks: tuple[Chunk, ...]

    def words(self) -> list[str]:
        return [place.word for chunk in self.chunks for place in chunk.places]


def generate(
    model: Model, request: PictureRequest, words: Sequence[Embedding], *, batch_size: int = 8
) -> Iterator[SamplingStep | Picture]:
    """Make the pictures of a request in its order, yielding after each sampling step and each picture.

    Args:
        words: embeddings that prompts may use; the first of equal names (to the tokenizer) counts.
        batch_size: pictures at a time; only those whose prompts have the same number of chunks share a batch.

    Raises:
        VocableError: `sampler.unknown`, `picture.size`, `embedding.width`, `embedding.too_long` before the first step;
            `picture.not_finite` when the model overflows.
    """
    _check_size(model, request)
    known = {word.name: word for word in reversed(words)}
    lexicon = Lexicon(model.tokenizer, [(word.name, len(word.vectors)) for word in words])
    # Without guidance it plays no part, so it must not lengthen the conditioning either.
    negative = _order(request.negative_prompt if request.cfg_scale != 1 else "", 0, lexicon)
    orders = [_order(prompt, seed, lexicon) for prompt, seed in request.pictures]
    vectors = _load_vectors(model, [known[name] for order in [*orders, negative] for name in order.words()])
    batches = _make_batches(orders, negative, batch_size)
    done = 0
    for batch in batches:
        sampling = _Sampling(model, request, batch, negative, vectors)
        for _ in range(sampling.steps):
            sampling.advance()
            done += 1
            yield SamplingStep(done, sampling.steps * len(batches))
        for order, latents in zip(batch, sampling.latents, strict=True):
            used = [known[name] for name in dict.fromkeys([*order.words(), *negative.words()])]
            yield Picture(_decode(model, latents), order.prompt, order.seed, _parameters(model, request, order, used))


class _Sampling:
    """The way of one batch from noise to latents.

    Gradients are off inside each method and not while `generate` is suspended, when a run may be training.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Model,
        request: PictureRequest,
        orders: Sequence[_Order],
        negative: _Order,
        vectors: Mapping[str, Tensor],
    ) -> None:
        self.model = model
        self.scale = request.cfg_scale
        self.scheduler = make_scheduler(model, request.sampler, request.steps)
        self.steps = len(self.scheduler.timesteps)
        self._index = 0
        generators = [torch.Generator("cpu").manual_seed(order.seed) for order in orders]
        self._options = {"generator": generators} if find_sampler(request.sampler).draws_noise else {}
        encoded = encode(model, [negative.chunks, *(order.chunks for order in orders)], vectors)
        self._conditioning = encoded[1:]
        if self.scale != 1:
            self._conditioning = torch.cat([encoded[:1].expand(len(orders), -1, -1), encoded[1:]])
        edges = (request.height // model.latent_factor, request.width // model.latent_factor)
        shape = (1, model.unet.config.in_channels, *edges)
        noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        self.latents = noise.to(model.device) * self.scheduler.init_noise_sigma
        """[B, C, H, W] float32."""

    @torch.no_grad()
    def advance(self) -> None:
        timestep = self.scheduler.timesteps[self._index]
        scaled = self.scheduler.scale_model_input(self.latents, timestep)
        predicted = self._predict(scaled, timestep)
        self.latents = self.scheduler.step(predicted, timestep, self.latents, **self._options).prev_sample
        self._index += 1

    def _predict(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """[B, C, H, W] float32: the U-Net's output, guided away from the negative prompt."""
        batch = torch.cat([latents, latents]) if self.scale != 1 else latents
        batch = batch.to(dtype=self.model.dtype, memory_format=torch.channels_last)
        output: Tensor = self.model.unet(batch, timestep, encoder_hidden_states=self._conditioning).sample.float()
        if self.scale == 1:
            return output
        unwanted, wanted = output.chunk(2)
        return unwanted + self.scale * (wanted - unwanted)


def _check_size(model: Model, request: PictureRequest) -> None:
    factor = model.latent_factor
    if min(request.width, request.height) < factor or request.width % factor or request.height % factor:
        title = f"The model {model.entry.name} cannot make pictures of {request.width}x{request.height} pixels."
        raise VocableError("picture.size", title, f"Both edges must be multiples of {factor}.")


def _order(prompt: str, seed: int, lexicon: Lexicon) -> _Order:
    return _Order(prompt, seed, lay_out(prompt, lexicon))


def _make_batches(orders: Sequence[_Order], negative: _Order, size: int) -> list[list[_Order]]:
    """Cut the orders into batches of equally many chunks: padding would make a picture depend on its neighbours."""
    batches: list[list[_Order]] = []
    for _, alike in groupby(orders, key=lambda order: max(len(order.chunks), len(negative.chunks))):
        group = list(alike)
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return batches


def _load_vectors(model: Model, words: Sequence[Embedding]) -> dict[str, Tensor]:
    for word in words:
        check_width(word.name, word.vectors.shape[1], model)
    return {word.name: torch.tensor(word.vectors, device=model.device) for word in words}


@torch.no_grad()
def _decode(model: Model, latents: Tensor) -> Image.Image:
    """Turn latents [C, H, W] into a picture; one at a time, which bounds the memory that the VAE takes."""
    scaled = (latents[None] / model.scaling_factor).to(dtype=model.vae.dtype, memory_format=torch.channels_last)
    pixels = model.vae.decode(scaled).sample[0].float()
    if not torch.isfinite(pixels).all():
        title = f"The model {model.entry.name} gave NaN or infinity instead of a picture."
        raise VocableError("picture.not_finite", title, "Use precision float32 or bfloat16, or other vectors.")
    levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy()))


def _parameters(model: Model, request: PictureRequest, order: _Order, used: Sequence[Embedding]) -> str:
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
        words=used,
    )
