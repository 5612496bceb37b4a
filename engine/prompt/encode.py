"""Conditioning from prompts: the text encoders' output, with words' vectors in the places of their tokens, weighed.

Called by training, evaluation and sampling in the worker. A forward hook on the token embedding writes the vectors,
only while `encode` runs; no table is enlarged or changed, and gradients reach the given vectors and nothing else.
Emphasis and layer choice are those of AUTOMATIC1111's webui (webui.md 3.7, 3.8). Of SDXL's two encoders both give the
layer before their last, unnormed, and the second a pooled vector, read at the end token (Podell et al. 2023, 2.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.errors import VocableError
from engine.prompt.layout import CHUNK, Chunk
from engine.recipe import Emphasis

if TYPE_CHECKING:
    from engine.models.load import Model

_UNWEIGHED = (1.0,) * CHUNK


@dataclass(frozen=True)
class Slots:
    """Where a word's vectors go in a batch of chunks: `count` times over, each time whole."""

    rows: Tensor
    """[count * V] int64: the chunk."""
    columns: Tensor
    """[count * V] int64: the position in the chunk."""
    count: int
    vectors: int


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts on the device. It can be made ahead of its step and used any number of times."""

    ids: Tensor
    """[B * n, 77] int64: the chunks of each prompt, padded to the same number n."""
    words: Mapping[str, Slots]
    weights: Tensor | None
    """[B * n, 77] float32; None when all are 1."""
    batch: int
    """B."""
    second_ids: Tensor | None = None
    """[B * n, 77] int64 as the second text encoder pads them; None where there is one encoder."""
    ends: Tensor | None = None
    """[B] int64: place of the end token in each prompt's first chunk; None where there is one encoder."""


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net is told of B prompts."""

    hidden: Tensor
    """[B, 77 * n, D] in the text encoder's dtype, n being the chunks of the longest prompt."""
    pooled: Tensor | None = None
    """[B, P] of each prompt's first chunk, from the second text encoder; None where there is one encoder."""

    def __getitem__(self, rows: slice) -> Conditioning:
        return Conditioning(self.hidden[rows], None if self.pooled is None else self.pooled[rows])


def join(conditioning: Sequence[Conditioning]) -> Conditioning:
    """Put prompts of one length into one batch."""
    pooled = [part.pooled for part in conditioning if part.pooled is not None]
    return Conditioning(torch.cat([part.hidden for part in conditioning]), torch.cat(pooled) if pooled else None)


def prepare_prompts(model: Model, prompts: Sequence[Sequence[Chunk]]) -> Prompts:
    """Put laid-out prompts on the model's device, without waiting for it."""
    longest = max(len(chunks) for chunks in prompts)
    blank = _empty_chunk(model)
    rows = [chunk for chunks in prompts for chunk in [*chunks, *[blank] * (longest - len(chunks))]]
    found: dict[str, list[tuple[int, int, int]]] = {}
    for row, chunk in enumerate(rows):
        for place in chunk.places:
            found.setdefault(place.word, []).append((row, place.offset, place.vectors))
    ids = _to_device([chunk.ids for chunk in rows], model)
    weights = None
    if any(chunk.weights != _UNWEIGHED for chunk in rows):
        weights = _to_device([chunk.weights for chunk in rows], model, torch.float32)
    slots = {word: _slots(places, model) for word, places in found.items()}
    if model.text_encoder_2 is None:
        return Prompts(ids, slots, weights, len(prompts))
    second_ids = _to_device([_padded(chunk, model.second_pad_id) for chunk in rows], model)
    ends = _to_device([chunks[0].used + 1 for chunks in prompts], model)
    return Prompts(ids, slots, weights, len(prompts), second_ids, ends)


def encode(
    model: Model,
    prompts: Prompts | Sequence[Sequence[Chunk]],
    vectors: Mapping[str, Tensor],
    *,
    emphasis: Emphasis = "Original",
    clip_skip: int = 1,
    shares: Sequence[int] = (),
) -> Tensor:
    """`encode_prompts` without the pooled vectors: [B, 77 * n, D]."""
    return encode_prompts(model, prompts, vectors, emphasis=emphasis, clip_skip=clip_skip, shares=shares).hidden


def encode_prompts(
    model: Model,
    prompts: Prompts | Sequence[Sequence[Chunk]],
    vectors: Mapping[str, Tensor],
    *,
    emphasis: Emphasis = "Original",
    clip_skip: int = 1,
    shares: Sequence[int] = (),
) -> Conditioning:
    """Encode a batch of prompts, each given as its chunks (or all of them prepared).

    Args:
        prompts: B prompts; those of fewer chunks than the longest are padded with empty ones.
        vectors: for each word in the prompts its vectors, [V, D] float32 on the model's device.
        emphasis: `Original` keeps the mean of each prompt's chunk when its tokens are weighed; the other modes do not.
        clip_skip: layer whose output is used, counted from the last, which is 1; SDXL has only 1.
        shares: when the prompts are what one schedule says in turn: for how many of its entries each stands. They then
            keep their mean together, as webui encodes them; without, no prompt depends on another.

    Raises:
        VocableError: `embedding.width` when vectors are not as wide as the model's; `picture.clip_skip`.
    """
    check_clip_skip(model, clip_skip)
    prepared = prompts if isinstance(prompts, Prompts) else prepare_prompts(model, prompts)
    for word in prepared.words:
        check_width(word, vectors[word].shape[-1], model)
    if model.text_encoder_2 is not None:
        return _encode_twice(model, prepared, vectors, emphasis, shares)
    with _written(model.text_encoder.get_input_embeddings(), prepared.words, vectors):
        hidden = _run_encoder(model, prepared.ids, clip_skip)
    return Conditioning(_finish(hidden, prepared, emphasis, shares))


def _encode_twice(
    model: Model, prepared: Prompts, vectors: Mapping[str, Tensor], emphasis: Emphasis, shares: Sequence[int]
) -> Conditioning:
    """By both encoders of SDXL; each gets its columns of the vectors, and keeps its own mean."""
    split, second = model.entry.split, model.text_encoder_2
    assert prepared.ends is not None
    with _written(model.text_encoder.get_input_embeddings(), prepared.words, vectors, slice(None, split)):
        states = model.text_encoder(input_ids=prepared.ids, output_hidden_states=True).hidden_states
    with _written(second.get_input_embeddings(), prepared.words, vectors, slice(split, None)):
        output = second.text_model(input_ids=prepared.second_ids, output_hidden_states=True)
    hidden = [_finish(state, prepared, emphasis, shares) for state in (states[-2], output.hidden_states[-2])]
    # By the place that layout gave it: transformers looks for the largest id, or for one that a configuration names.
    last = output.last_hidden_state.unflatten(0, (prepared.batch, -1))[:, 0]
    ended = last[torch.arange(prepared.batch, device=last.device), prepared.ends]
    return Conditioning(torch.cat(hidden, dim=-1), second.text_projection(ended))


def _finish(hidden: Tensor, prepared: Prompts, emphasis: Emphasis, shares: Sequence[int]) -> Tensor:
    """Weigh [B * n, 77, D] and lay the chunks of each prompt end to end."""
    if prepared.weights is not None:
        chunks = (prepared.batch, -1, CHUNK)
        hidden = _weigh(hidden.view(*chunks, hidden.shape[-1]), prepared.weights.view(chunks), emphasis, shares)
    return hidden.reshape(prepared.batch, -1, hidden.shape[-1])


def check_clip_skip(model: Model, clip_skip: int) -> None:
    """Refuse a layer that the text encoder does not have with `picture.clip_skip`."""
    layers = model.text_encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= layers:
        title = f"The text encoder of {model.entry.name} has {layers} layers; CLIP skip {clip_skip} is not one of them."
        raise VocableError("picture.clip_skip", title, f"Use 1, the last, to {layers}.")


def check_width(word: str, width: int, model: Model) -> None:
    """Refuse a word made for another family of models with `embedding.width`."""
    if width != model.entry.width:
        title = f"The word '{word}' is {width} numbers wide; the model {model.entry.name} takes {model.entry.width}."
        raise VocableError("embedding.width", title, "Use a word that was made for this kind of model.")


@contextmanager
def _written(
    table: nn.Module, words: Mapping[str, Slots], vectors: Mapping[str, Tensor], columns: slice = slice(None)
) -> Iterator[None]:
    """Replace rows of the table's output by these columns of the vectors while the context lasts."""

    def write(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        for word, slots in words.items():
            values = (
                vectors[word][:, columns].to(output.dtype).expand(slots.count, -1, -1).reshape(-1, output.shape[-1])
            )
            # Not by gathering from a table: its gradient would be a scatter with atomic adds, in no fixed order.
            output = output.index_put((slots.rows, slots.columns), values)
        return output

    hook = table.register_forward_hook(write)
    try:
        yield
    finally:
        hook.remove()


def _run_encoder(model: Model, ids: Tensor, clip_skip: int) -> Tensor:
    """[R, 77, D]: the output of a layer, normed as the last one's is."""
    if clip_skip == 1:
        last: Tensor = model.text_encoder(input_ids=ids).last_hidden_state
        return last
    states = model.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states
    normed: Tensor = model.text_encoder.final_layer_norm(states[-clip_skip])
    return normed


def _weigh(hidden: Tensor, weights: Tensor, emphasis: Emphasis, shares: Sequence[int]) -> Tensor:
    """Multiply tokens by their weights.

    Args:
        hidden: [B, n, 77, D].
        weights: [B, n, 77].
    """
    plain = hidden.float()
    weighed = plain * weights[..., None]
    if emphasis == "Original":
        # Chunks without weights are left as they are to the last bit, whatever stands beside them.
        touched = (weights != 1).any(dim=2)
        before, after = plain.mean(dim=(2, 3)), weighed.mean(dim=(2, 3))
        if shares:
            share = torch.tensor(shares, dtype=torch.float32, device=hidden.device)[:, None] / sum(shares)
            before, after = ((share * mean).sum(dim=0, keepdim=True) for mean in (before, after))
            touched = touched.any(dim=0, keepdim=True)
        ratio = torch.where(touched, before, 1) / torch.where(touched, after, 1)
        weighed = weighed * ratio[..., None, None]
    return weighed.to(hidden.dtype)


def _slots(places: list[tuple[int, int, int]], model: Model) -> Slots:
    vectors = places[0][2]
    rows = [row for row, _, _ in places for _ in range(vectors)]
    columns = [offset + number for _, offset, _ in places for number in range(vectors)]
    return Slots(_to_device(rows, model), _to_device(columns, model), len(places), vectors)


def _padded(chunk: Chunk, pad_id: int) -> tuple[int, ...]:
    """The ids of a chunk with other padding."""
    filled = chunk.used + 2
    return (*chunk.ids[:filled], *[pad_id] * (CHUNK - filled))


def _empty_chunk(model: Model) -> Chunk:
    tokenizer = model.tokenizer
    return Chunk((tokenizer.start_id, tokenizer.end_id, *[tokenizer.pad_id] * (CHUNK - 2)), ())


def _to_device(values: Any, model: Model, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(values, dtype=dtype).to(model.device, non_blocking=True)
