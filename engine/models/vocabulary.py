"""The tokenizer of a model: its folder's own, or for a single file the one that all families share.

Called by `load`, and in the service to count tokens. No torch.
"""

from __future__ import annotations

from pathlib import Path

from engine.models.catalog import ModelEntry
from engine.prompt.tokenizer import PromptTokenizer, load_tokenizer

CLIP_TOKENIZER = Path(__file__).parent / "configs" / "clip_tokenizer"

OPEN_CLIP_PAD = 0
"""OpenCLIP fills a chunk with zeros, OpenAI's CLIP with the end token."""


def tokenizer_folder(entry: ModelEntry) -> Path:
    """Where the files of a model's tokenizer lie."""
    return entry.path / "tokenizer" if entry.path.is_dir() else CLIP_TOKENIZER


def read_tokenizer(entry: ModelEntry) -> PromptTokenizer:
    """The tokenizer of a model's (first) text encoder. Raises VocableError `model.unreadable`."""
    tokenizer = load_tokenizer(tokenizer_folder(entry))
    if not entry.path.is_dir() and entry.family == "sd2":
        tokenizer.pad_id = OPEN_CLIP_PAD
    return tokenizer


def read_second_pad_id(entry: ModelEntry) -> int:
    """What fills a chunk for the second text encoder; its vocabulary is that of the first."""
    folder = entry.path / "tokenizer_2"
    return load_tokenizer(folder).pad_id if folder.is_dir() else OPEN_CLIP_PAD
