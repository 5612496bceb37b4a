"""The model that the worker keeps loaded, and the words that its prompts may use. Used by the desk; imports torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from engine.embedding.read import read_embedding
from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from engine.models.catalog import ModelEntry
from engine.models.load import Model, load_model


class LoadedModel:
    """Keeps the last model warm.

    Args:
        device: where models run.
        on_change: called with the entry of the model that is loaded from now on, or None.
    """

    def __init__(self, device: torch.device, on_change: Callable[[ModelEntry | None], None]) -> None:
        self.device = device
        self._on_change = on_change
        self._model: Model | None = None

    def get(self, entry: ModelEntry, dtype: torch.dtype) -> Model:
        """The model, loaded if need be in place of another; memory never holds both."""
        if self._model is None or not _is(self._model, entry, dtype):
            held, self._model = self._model is not None, None
            _collect()
            try:
                self._model = load_model(entry, device=self.device, dtype=dtype)
            finally:
                if held or self._model is not None:
                    self._on_change(entry if self._model is not None else None)
        return self._model

    @contextmanager
    def borrow(self, entry: ModelEntry, dtype: torch.dtype, *, beside: bool) -> Iterator[Model]:
        """Lend a model for a while.

        Args:
            beside: the loaded one is in use; another one is loaded beside it and released after use.
        """
        if not beside or (self._model is not None and _is(self._model, entry, dtype)):
            yield self.get(entry, dtype)
            return
        model = load_model(entry, device=self.device, dtype=dtype)
        try:
            yield model
        finally:
            del model
            _collect()

    def release(self) -> None:
        if self._model is not None:
            self._model = None
            self._on_change(None)
        _collect()


class Words:
    """The usable words, each read from its canonical file when it is first needed."""

    def __init__(self) -> None:
        self._paths: dict[tuple[str, str], Path] = {}
        self._read: dict[tuple[str, str], Embedding | None] = {}

    def replace(self, words: Sequence[dict[str, str]]) -> None:
        """Take the wire's `words` as the words there are from now on."""
        self._paths = {(word["name"], word["hash"]): Path(word["path"]) for word in words}
        self._read = {key: embedding for key, embedding in self._read.items() if key in self._paths and embedding}

    def of_width(self, width: int) -> list[Embedding]:
        """The words whose vectors a model of this width takes, by name."""
        known = (self._get(key) for key in sorted(self._paths))
        return [embedding for embedding in known if embedding is not None and embedding.vectors.shape[1] == width]

    def _get(self, key: tuple[str, str]) -> Embedding | None:
        if key not in self._read:
            self._read[key] = _read_word(key[0], self._paths[key])
        return self._read[key]


def _read_word(name: str, path: Path) -> Embedding | None:
    try:
        return replace(read_embedding(path.read_bytes(), name), name=name)
    except (OSError, VocableError) as error:
        print(f"the word '{name}' is left out: {error}", file=sys.stderr)  # noqa: T201 - this is the worker's log
        return None


def _is(model: Model, entry: ModelEntry, dtype: torch.dtype) -> bool:
    return model.entry == entry and model.dtype == dtype


def _collect() -> None:
    """Give memory back now: models hold reference cycles, and the device's allocator keeps what it has."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
