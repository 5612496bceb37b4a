"""Conditioning for sampling: what a part of a prompt says in the course of its schedule, encoded once.

Called by `engine.sampling` in the worker, never for training: no gradient passes. The cache is keyed by content (token
ids, weights, the vectors of the words), so an embedding that changed under its name is never served stale.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from engine.prompt.encode import Conditioning, encode_prompts
from engine.prompt.layout import Chunk
from engine.recipe import Emphasis

if TYPE_CHECKING:
    from engine.models.load import Model

CACHE_BYTES = 64 << 20
"""About 280 chunks of SD 1.x in float32."""


class ConditioningCache:
    """Tensors of one model on its device, the least recently used dropped first."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[str, Conditioning] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Conditioning | None:
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
        return held

    def put(self, key: str, conditioning: Conditioning) -> None:
        """Keep what nobody changes any more; what is larger than the limit is not kept."""
        if _bytes(conditioning) > self._limit:
            return
        replaced = self._held.pop(key, None)
        self._bytes += _bytes(conditioning) - (0 if replaced is None else _bytes(replaced))
        self._held[key] = conditioning
        while self._bytes > self._limit:
            self._bytes -= _bytes(self._held.popitem(last=False)[1])


def _bytes(conditioning: Conditioning) -> int:
    return conditioning.hidden.nbytes + (0 if conditioning.pooled is None else conditioning.pooled.nbytes)


@torch.no_grad()
def condition(
    model: Model,
    texts: Sequence[Sequence[Chunk]],
    vectors: Mapping[str, NDArray[np.float32]],
    *,
    shares: Sequence[int],
    emphasis: Emphasis,
    clip_skip: int,
) -> Conditioning:
    """Encode the texts of one schedule, or take them from the model's cache.

    They are encoded by themselves, never in a batch with others, so that what is cached depends on nothing else.

    Args:
        texts: E texts, padded with empty chunks to the longest of them.
        vectors: [V, D] of each word in the texts.
        shares: for how many entries of the schedule each text stands.

    Returns:
        Of E texts, shared: it must not be changed.
    """
    key = _key(texts, vectors, shares, emphasis, clip_skip)
    held = model.conditioning.get(key)
    if held is None:
        used = {place.word for chunks in texts for chunk in chunks for place in chunk.places}
        tensors = {name: torch.tensor(vectors[name], device=model.device) for name in used}
        held = encode_prompts(model, texts, tensors, shares=shares, emphasis=emphasis, clip_skip=clip_skip)
        model.conditioning.put(key, held)
    return held


def _key(
    texts: Sequence[Sequence[Chunk]],
    vectors: Mapping[str, NDArray[np.float32]],
    shares: Sequence[int],
    emphasis: Emphasis,
    clip_skip: int,
) -> str:
    """SHA-256 of everything that the conditioning depends on but the model itself."""
    digest = hashlib.sha256(repr((tuple(shares), emphasis, clip_skip)).encode())
    for chunks in texts:
        digest.update(b"text")
        for chunk in chunks:
            digest.update(repr((chunk.ids, chunk.weights)).encode())
            for place in chunk.places:
                values = np.ascontiguousarray(vectors[place.word])
                digest.update(repr((place.offset, values.shape)).encode())
                digest.update(values.tobytes())
    return digest.hexdigest()
