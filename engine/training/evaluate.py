"""The honest number: how well phrases describe pictures, measured with the same noise and timesteps for each phrase.

Called by the worker, between two steps or by itself. Nothing is drawn but from the seed, so equal questions have equal
answers; lower is better, and phrases compare because they share every draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.dataset.captions import read_caption
from engine.dataset.folder import list_pictures
from engine.dataset.latents import LatentCache
from engine.dataset.templates import fill_template
from engine.embedding.shelf import Word
from engine.errors import VocableError
from engine.hypernetwork.attach import attached
from engine.hypernetwork.family import check_family
from engine.hypernetwork.network import Network, load_network
from engine.hypernetwork.shelf import StoredNetwork, chain_of, fold_shelf
from engine.models.load import Model
from engine.models.predict import frame, predict
from engine.names import fold_name
from engine.prompt.encode import Conditioning, encode_prompts, join
from engine.prompt.layout import Lexicon, lay_out
from engine.prompt.tags import read_hypernet, take_tags
from engine.randomness import python_random, torch_generator
from engine.text import escape
from engine.training.batches import add_noise
from engine.training.epochs import Sample

_BATCH = 32
"""Pictures in one pass of the U-Net at 64 x 64 latents or fewer; larger latents take proportionally fewer."""
_BATCH_CELLS = _BATCH * 64 * 64


@dataclass(frozen=True)
class _Draw:
    """One noised picture and the template line that describes it."""

    sample: int
    line: int
    timestep: int
    noise: int


@torch.no_grad()
def evaluate(
    model: Model,
    *,
    folder: Path,
    lines: Sequence[str],
    phrases: Sequence[str],
    words: Sequence[Word],
    networks: Sequence[StoredNetwork] = (),
    width: int,
    height: int,
    seed: int,
    timesteps: int = 20,
    noises: int = 2,
    latents: Path,
) -> Iterator[tuple[int, int] | list[float]]:
    """Mean squared error of the model's prediction on the pictures of `folder`, for each phrase in place of `[name]`.

    Args:
        lines: prompt templates; each noised picture is described by one of them, the same for every phrase.
        phrases: texts, which may hold any of `words`, and tags of hypernetworks, which are used while theirs is
            measured wherever the phrase stands in a prompt, and if it stands in none.
        networks: hypernetworks that phrases may name.
        timesteps: strata of equal width; the middle of each is measured.
        noises: draws of noise for each picture and timestep.
        latents: folder of the latent cache; the posterior's mean is measured.

    Yields:
        (done, total) in passes of the U-Net, at last the losses in the order of the phrases.

    Raises:
        VocableError: `dataset.*` when a picture cannot be read: leaving it out would change the number; for the same
            reason `hypernetwork.unknown` for a tag that names none; `hypernetwork.model`.
    """
    chains = [_load_chain(model, phrase, networks) for phrase in phrases]
    samples = _read_samples(model, folder, latents, width, height)
    draws = _list_draws(samples, model, len(lines), seed, timesteps, noises)
    cells = samples[0].latents.mean[0].numel()
    size = max(1, min(_BATCH, _BATCH_CELLS // cells))
    batches = [draws[begin : begin + size] for begin in range(0, len(draws), size)]
    total = len(batches) * len(phrases)
    losses: list[float] = []
    for phrase, chain in zip(phrases, chains, strict=True):
        conditioning = _encode_prompts(model, samples, lines, phrase, words)
        errors: list[Tensor] = []
        for batch in batches:
            yield len(losses) * len(batches) + len(errors), total
            # Only while the model runs: a run may train on it between two batches.
            with attached(model.unet, chain):
                errors.append(_measure(model, samples, batch, conditioning, seed))
        losses.append(float(torch.cat(errors).double().mean()))
    yield total, total
    yield losses


def _load_chain(model: Model, phrase: str, networks: Sequence[StoredNetwork]) -> list[tuple[Network, float]]:
    """The hypernetworks that a phrase's tags name, in their order, with their strengths."""
    shelf = fold_shelf(networks)
    _, tags = take_tags(phrase)
    for tag in tags:
        named = read_hypernet(tag)
        if named is None or fold_name(named.name) not in shelf:
            shown = escape(f"<{':'.join((tag.kind, *tag.arguments))}>", 200)
            title = f"There is no hypernetwork that {shown} could mean."
            raise VocableError("hypernetwork.unknown", title, "Form: <hypernet:NAME> or <hypernet:NAME:STRENGTH>.")
    chain = chain_of(tags, shelf)
    if chain:
        check_family(model.entry)
    loaded = {name: load_network(shelf[fold_name(name)].load(), model.device) for name in dict(chain)}
    return [(loaded[name], strength) for name, strength in chain]


def _read_samples(model: Model, folder: Path, latents: Path, width: int, height: int) -> list[Sample]:
    cache = LatentCache(latents, model, width=width, height=height, on_write_error=lambda _: None)
    return [Sample(path.name, read_caption(path), cache.encode(path).latents) for path in list_pictures(folder)]


def _list_draws(
    samples: Sequence[Sample], model: Model, lines: int, seed: int, timesteps: int, noises: int
) -> list[_Draw]:
    steps = len(model.alphas_cumprod)
    draws = []
    for sample in range(len(samples)):
        for stratum in range(timesteps):
            for noise in range(noises):
                line = python_random(seed, "evaluation line", sample, stratum, noise).randrange(lines)
                draws.append(_Draw(sample, line, (2 * stratum + 1) * steps // (2 * timesteps), noise))
    return draws


def _encode_prompts(
    model: Model, samples: Sequence[Sample], lines: Sequence[str], phrase: str, words: Sequence[Word]
) -> dict[tuple[int, int], Conditioning]:
    """Of every pair of picture and line, all of one length; each text is encoded once."""
    lexicon = Lexicon(model.tokenizer, [(word.name, word.vectors) for word in words])
    texts = {
        (sample, line): fill_template(text, name=take_tags(phrase)[0], filewords=samples[sample].caption)
        for sample in range(len(samples))
        for line, text in enumerate(lines)
    }
    distinct = list(dict.fromkeys(texts.values()))
    chunks = [lay_out(text, lexicon) for text in distinct]
    used = {place.word for text in chunks for chunk in text for place in chunk.places}
    known = {word.name: word for word in reversed(words)}
    vectors = {name: torch.tensor(known[name].load().vectors, device=model.device) for name in used}
    encoded = encode_prompts(model, chunks, vectors)
    by_text = {text: encoded[row : row + 1] for row, text in enumerate(distinct)}
    return {pair: by_text[text] for pair, text in texts.items()}


def _measure(
    model: Model,
    samples: Sequence[Sample],
    batch: Sequence[_Draw],
    conditioning: dict[tuple[int, int], Conditioning],
    seed: int,
) -> Tensor:
    """[B] float32 on the CPU: the error of each draw."""
    alphas = model.alphas_cumprod.cpu()
    noisy, target = zip(*(_noise(samples, draw, alphas, model, seed) for draw in batch), strict=True)
    predicted = predict(
        model,
        torch.stack(noisy).to(device=model.device, dtype=model.dtype),
        torch.tensor([draw.timestep for draw in batch], device=model.device),
        join([conditioning[draw.sample, draw.line] for draw in batch]),
        frame(model, [samples[draw.sample].latents.framing(model.latent_factor) for draw in batch]),
    )
    errors: Tensor = (predicted.float().cpu() - torch.stack(target)).square().flatten(1).mean(dim=1)
    return errors


def _noise(samples: Sequence[Sample], draw: _Draw, alphas: Tensor, model: Model, seed: int) -> tuple[Tensor, Tensor]:
    latents = samples[draw.sample].latents.mean * model.scaling_factor
    generator = torch_generator(seed, "evaluation noise", draw.sample, draw.timestep, draw.noise)
    noise = torch.randn(latents.shape, generator=generator)
    return add_noise(latents, noise, alphas[draw.timestep], model.prediction_type)
