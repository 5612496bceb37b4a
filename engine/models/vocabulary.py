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


def tokenizer_files(entry: ModelEntry) -> tuple[Path, int | None]:
    """Where the files of a model's (first) tokenizer lie, and what fills a chunk instead of what they say."""
    if entry.path.is_dir():
        return entry.path / "tokenizer", None
    return CLIP_TOKENIZER, OPEN_CLIP_PAD if entry.family == "sd2" else None


def open_tokenizer(folder: Path, pad_id: int | None) -> PromptTokenizer:
    """Read what `tokenizer_files` names. Raises VocableError `model.unreadable`."""
    tokenizer = load_tokenizer(folder)
    if pad_id is not None:
        tokenizer.pad_id = pad_id
    return tokenizer


def read_second_pad_id(entry: ModelEntry) -> int:
    """What fills a chunk for the second text encoder; its vocabulary is that of the first."""
    folder = entry.path / "tokenizer_2"
    return load_tokenizer(folder).pad_id if folder.is_dir() else OPEN_CLIP_PAD
