"""The base models that words are compared with and prompts are counted for: what is known of each without torch.

Used by the service. A tokenizer is read once for each model and content, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from daemon.tables import Target
from engine.errors import VocableError
from engine.models.catalog import STARTER, ModelEntry, find_model, read_checkpoint, read_config
from engine.models.vocabulary import open_tokenizer, tokenizer_files
from engine.prompt.tokenizer import PromptTokenizer

_KEPT = 4
"""Tokenizers kept in memory; each takes some megabytes."""

_log = logging.getLogger(__name__)


class Targets:
    """Finds models by reference: name, path or hash; an empty one means the model that is in use.

    Args:
        folders: where models lie; may be changed.
        cache: where their hashes are kept.
    """

    def __init__(self, folders: Sequence[Path], cache: Path | None = None) -> None:
        self._folders = folders
        self._cache = cache
        self._current = (STARTER, STARTER)

    def use(self, name: str, path: str) -> bool:
        """Note which model the worker loaded; False when it was that one already. The starter is the first."""
        before, self._current = self._current, (name, path)
        return self._current != before

    async def find(self, reference: str) -> Target:
        """A model with its tokenizer, if that can be read.

        Raises:
            VocableError: `model.unknown`, `model.unreadable`.
        """
        return await asyncio.to_thread(self._find, reference)

    async def tokenizer(self, reference: str) -> tuple[ModelEntry, PromptTokenizer]:
        """A model with its tokenizer. Raises VocableError `model.unknown`, `model.unreadable`."""

        def find() -> tuple[ModelEntry, PromptTokenizer]:
            entry = self._entry(reference)
            return entry, read_tokenizer(entry)

        return await asyncio.to_thread(find)

    def _find(self, reference: str) -> Target:
        entry = self._entry(reference)
        target = describe_entry(entry)
        try:
            return replace(target, vocabulary=read_tokenizer(entry))
        except VocableError as error:
            _log.warning("words are compared by name only: %s", error.title)
            return target

    def _entry(self, reference: str) -> ModelEntry:
        if reference:
            return find_model(reference, self._folders, cache=self._cache, wait=False)
        name, path = self._current
        return replace(find_model(path, self._folders, cache=self._cache, wait=False), name=name)


def read_tokenizer(entry: ModelEntry) -> PromptTokenizer:
    """The tokenizer of a model; blocks when it is read for the first time. Raises VocableError `model.unreadable`."""
    folder, pad_id = tokenizer_files(entry)
    try:
        changed = tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()))
    except OSError:
        changed = ()
    return _read(folder, pad_id, changed)


def describe_entry(entry: ModelEntry) -> Target:
    """All that files are compared with but the vocabulary."""
    return Target(
        entry.name, entry.width, entry.hash, split=entry.split, family=entry.family, channels=_read_channels(entry)
    )


def _read_channels(entry: ModelEntry) -> tuple[int, ...]:
    """See Target.channels."""
    try:
        if entry.path.is_file():
            config = read_checkpoint(entry.path).configs["unet"]
        else:
            config, _ = read_config(entry.path, "unet/config.json")
        widths = config["block_out_channels"]
        kinds = [*config["down_block_types"], *reversed(config["up_block_types"])]
        own = {int(width) for kind, width in zip(kinds, [*widths, *widths], strict=True) if "Attn" in kind}
        middle = {int(widths[-1])} if "Attn" in config.get("mid_block_type", "Attn") else set()
        return tuple(sorted(own | middle | {int(config["cross_attention_dim"])}))
    except (VocableError, KeyError, TypeError, ValueError):
        return ()


@lru_cache(maxsize=_KEPT)
def _read(folder: Path, pad_id: int | None, changed: tuple[tuple[str, int], ...]) -> PromptTokenizer:
    return open_tokenizer(folder, pad_id)
