"""Makes a new word out of an init text. Called in the worker, by training and by `vocable new`."""

from __future__ import annotations

import numpy as np
import torch

from engine.embedding.metadata import describe
from engine.embedding.vectors import Embedding
from engine.models.load import Model


@torch.no_grad()
def create_embedding(model: Model, *, name: str, init_text: str, vectors: int) -> Embedding:
    """Fill vectors with the token vectors of the init text, each token standing for an equal share of them.

    Row i is token floor(i * T / V) of the T tokens (only the first V count); an empty text gives zeros. This is the
    rule of AUTOMATIC1111's webui.
    """
    ids = model.tokenizer.ids(init_text)[:vectors]
    rows = np.zeros((vectors, model.entry.width), dtype=np.float32)
    if ids:
        encoders = [encoder for encoder in (model.text_encoder, model.text_encoder_2) if encoder is not None]
        tables = [encoder.get_input_embeddings().weight for encoder in encoders]
        found = [table[torch.tensor(ids, device=table.device)].float().cpu().numpy() for table in tables]
        tokens = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
        rows = tokens[[row * len(ids) // vectors for row in range(vectors)]]
    return Embedding(
        name=name,
        vectors=rows,
        model=model.entry.name,
        model_hash=model.entry.hash,
        metadata=describe(model.entry, prediction_type=model.prediction_type, init_text=init_text),
        split=model.entry.split,
    )
