"""Conditioning from prompts: the text encoder's output, with words' vectors in the places of their tokens.

Called by training, evaluation and sampling in the worker. A forward hook on the token embedding writes the vectors,
only while `encode` runs; no table is enlarged or changed, and gradients reach the given vectors and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import VocableError
from engine.models.load import Model
from engine.prompt.layout import CHUNK, Chunk


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
    batch: int
    """B."""


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
    return Prompts(ids, {word: _slots(places, model) for word, places in found.items()}, len(prompts))


def encode(model: Model, prompts: Prompts | Sequence[Sequence[Chunk]], vectors: Mapping[str, Tensor]) -> Tensor:
    """Encode a batch of prompts, each given as its chunks (or all of them prepared).

    Args:
        prompts: B prompts; those of fewer chunks than the longest are padded with empty ones.
        vectors: for each word in the prompts its vectors, [V, D] float32 on the model's device.

    Returns:
        [B, 77 * n, D] in the text encoder's dtype, n being the chunks of the longest prompt.

    Raises:
        VocableError: `embedding.width` when vectors are not as wide as the model's.
    """
    prepared = prompts if isinstance(prompts, Prompts) else prepare_prompts(model, prompts)
    for word in prepared.words:
        check_width(word, vectors[word].shape[-1], model)
    with _written(model.text_encoder.get_input_embeddings(), prepared.words, vectors):
        hidden: Tensor = model.text_encoder(input_ids=prepared.ids).last_hidden_state
    return hidden.reshape(prepared.batch, -1, hidden.shape[-1])


def check_width(word: str, width: int, model: Model) -> None:
    """Refuse a word made for another family of models with `embedding.width`."""
    if width != model.entry.width:
        title = f"The word '{word}' is {width} numbers wide; the model {model.entry.name} takes {model.entry.width}."
        raise VocableError("embedding.width", title, "Use a word that was made for this kind of model.")


@contextmanager
def _written(table: nn.Module, words: Mapping[str, Slots], vectors: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace rows of the table's output while the context lasts."""

    def write(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        for word, slots in words.items():
            values = vectors[word].to(output.dtype).expand(slots.count, -1, -1).reshape(-1, output.shape[-1])
            # Not by gathering from a table: its gradient would be a scatter with atomic adds, in no fixed order.
            output = output.index_put((slots.rows, slots.columns), values)
        return output

    hook = table.register_forward_hook(write)
    try:
        yield
    finally:
        hook.remove()


def _slots(places: list[tuple[int, int, int]], model: Model) -> Slots:
    vectors = places[0][2]
    rows = [row for row, _, _ in places for _ in range(vectors)]
    columns = [offset + number for _, offset, _ in places for number in range(vectors)]
    return Slots(_to_device(rows, model), _to_device(columns, model), len(places), vectors)


def _empty_chunk(model: Model) -> Chunk:
    tokenizer = model.tokenizer
    return Chunk((tokenizer.start_id, tokenizer.end_id, *[tokenizer.pad_id] * (CHUNK - 2)), ())


def _to_device(values: Any, model: Model) -> Tensor:
    return torch.tensor(values, dtype=torch.int64).to(model.device, non_blocking=True)
