"""The `.pt` file of AUTOMATIC1111's webui: no torch, and the same bytes each time. Called by `convert`."""

from __future__ import annotations

from engine.embedding.legacy_writer import encode_legacy
from engine.embedding.payload import webui_fields
from engine.embedding.vectors import Embedding, check_vectors


def encode_webui(embedding: Embedding) -> bytes:
    """Write an embedding as `NAME.pt`: webui, ComfyUI, InvokeAI, diffusers and kohya read it.

    A word for two text encoders is their two tensors alone, for webui knows such a file by having both keys.

    Raises:
        VocableError: from `check_vectors`, for vectors that no reader would take.
    """
    check_vectors(embedding.name, embedding.vectors)
    return encode_legacy(webui_fields(embedding, embedding.encoders()))
