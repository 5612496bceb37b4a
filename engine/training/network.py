"""A hypernetwork while it is trained: what the U-Net predicts under it, and how much it adds to what it is given.

Called by `step`. Its numbers are one flat tensor, cut into views for each update, whose gradients come together again
in one piece. No gradient passes through the text, so each prompt is encoded once. Dropout is drawn from the seed, the
step and the place in the U-Net, so that what the backward pass computes again comes out as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import prod

import torch
from torch import Tensor

from engine.hypernetwork.attach import changed
from engine.hypernetwork.network import Network, Side, make_network, output_of
from engine.hypernetwork.network_file import HypernetworkFile, list_tensors
from engine.models.load import Model
from engine.models.predict import predict
from engine.prompt.conditioning import ConditioningCache
from engine.prompt.encode import Conditioning, encode_prompts, join
from engine.prompt.layout import Chunk, Lexicon, lay_out
from engine.randomness import derive_seed
from engine.training.batches import Batch

Encode = Callable[[Sequence[str]], Conditioning]


def predict_with_network(
    model: Model, file: HypernetworkFile, *, seed: int
) -> Callable[[Model, Tensor, Batch], AbstractContextManager[list[Tensor]]]:
    """How to predict under a hypernetwork of the structure of `file`, for a `Learner` whose values are its numbers."""
    shapes = {key: values.shape for key, values in list_tensors(file)}
    counts = [prod(shape) for shape in shapes.values()]
    encode = make_encoder(model)

    @contextmanager
    def predict_batch(model: Model, values: Tensor, batch: Batch) -> Iterator[list[Tensor]]:
        parts = zip(shapes.items(), torch.split(values, counts), strict=True)
        network = make_network(file, {key: part.view(shape) for (key, shape), part in parts})
        growths: list[Tensor] = []

        def change(place: int, side: Side, context: Tensor) -> Tensor:
            # On the device, for masks are as large as what they mask.
            draws = torch.Generator(model.device).manual_seed(derive_seed(seed, "dropout", batch.step, place, side))
            return _change(network, side, context, draws, growths)

        with changed(model.unet, change):
            predicted = predict(model, batch.noisy, batch.timesteps, encode(batch.texts), batch.framing)
            yield [predicted, torch.stack(growths).amax()]

    return predict_batch


def _change(network: Network, side: Side, context: Tensor, draws: torch.Generator, growths: list[Tensor]) -> Tensor:
    """The context that is used, at strength 1; notes how large what is added is beside what was there."""
    added = output_of(network, side, context, draws=draws)
    if added is None:
        return context
    plain = context.float()
    growths.append(_size(added.detach()) / _size(plain.detach()).clamp_min(torch.finfo(torch.float32).tiny))
    return (plain + added).to(context.dtype)


def _size(values: Tensor) -> Tensor:
    """Root of the mean square."""
    return values.square().mean().sqrt()


def make_encoder(model: Model, *, limit_bytes: int | None = None) -> Encode:
    """Encodes texts without any word, each once and by itself: what a text comes to depends on nothing else."""
    lexicon = Lexicon(model.tokenizer, [])
    cache = ConditioningCache() if limit_bytes is None else ConditioningCache(limit_bytes)
    empty = lay_out("", lexicon)

    @torch.no_grad()
    def encode_chunks(chunks: tuple[Chunk, ...]) -> Conditioning:
        key = repr([(chunk.ids, chunk.weights) for chunk in chunks])
        held = cache.get(key)
        if held is None:
            held = encode_prompts(model, [chunks], {})
            cache.put(key, held)
        return held

    def encode(texts: Sequence[str]) -> Conditioning:
        laid_out = [lay_out(text, lexicon) for text in texts]
        longest = max(map(len, laid_out))
        return join([encode_chunks((*chunks, *empty * (longest - len(chunks)))) for chunks in laid_out])

    return encode
