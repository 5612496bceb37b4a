"""The model that the worker keeps loaded, and what its prompts may use. Used by the desk; imports torch."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.embedding.read import read_embedding
from engine.embedding.shelf import Word
from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from engine.hypernetwork.attach import list_widths
from engine.hypernetwork.network_file import HypernetworkFile
from engine.hypernetwork.read import read_hypernetwork
from engine.hypernetwork.shelf import StoredNetwork
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
    """The usable words as the supervisor told of them; each is read from its canonical file when a prompt uses it."""

    def __init__(self) -> None:
        self._words: tuple[Word, ...] = ()
        self._read: dict[tuple[str, str], Embedding] = {}

    def replace(self, words: Sequence[dict[str, Any]]) -> None:
        """Take the wire's `words` as the words there are from now on; of equal tokens the first counts."""
        self._words = tuple(self._shelve(word) for word in words)
        told = {(word["name"], word["canonical"]) for word in words}
        self._read = {key: embedding for key, embedding in self._read.items() if key in told}

    def for_model(self, entry: ModelEntry) -> list[Word]:
        """The words whose vectors a model takes, in order of precedence."""
        return [word for word in self._words if (word.width, word.split) == (entry.width, entry.split)]

    def _shelve(self, word: dict[str, Any]) -> Word:
        name, path, canonical = word["name"], Path(word["path"]), word["canonical"]
        return Word(
            name=name,
            vectors=word["vectors"],
            width=word["width"],
            split=word["split"],
            hash=word["hash"],
            model=word["model"],
            model_hash=word["model_hash"],
            load=lambda: self._load(name, path, canonical),
        )

    def _load(self, name: str, path: Path, canonical: str) -> Embedding:
        key = (name, canonical)
        if key not in self._read:
            self._read[key] = replace(read_embedding(_read_checked(name, path, canonical), name), name=name)
        return self._read[key]


class Hypernetworks:
    """The readable hypernetworks as the supervisor told of them; each is read when a prompt names it, and not kept."""

    def __init__(self) -> None:
        self._told: tuple[dict[str, Any], ...] = ()

    def replace(self, hypernetworks: Sequence[dict[str, Any]]) -> None:
        """Take the wire's `hypernetworks` as those there are from now on."""
        self._told = tuple(hypernetworks)

    def of_model(self, model: Model) -> list[StoredNetwork]:
        """Those that have modules for attention of the model; of equal names the first counts."""
        widths = set(list_widths(model.unet)) if model.entry.family != "sdxl" else set()
        return [_shelve_network(told) for told in self._told if widths & set(told["widths"])]


def _shelve_network(told: dict[str, Any]) -> StoredNetwork:
    name, path, canonical = told["name"], Path(told["path"]), told["canonical"]

    def load() -> HypernetworkFile:
        return read_hypernetwork(_read_checked(name, path, canonical, "hypernetwork"), name)

    return StoredNetwork(name, told["hash"], told["model"], told["model_hash"], load)


def _read_checked(name: str, path: Path, sha256: str, noun: str = "embedding") -> bytes:
    """Bytes of a canonical file; raises VocableError `NOUN.lost` unless they are those that were told of."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _lost(name, noun, f"{path} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _lost(name, noun, f"{path} is not what it was")
    return data


def _lost(name: str, noun: str, problem: str) -> VocableError:
    what = "word" if noun == "embedding" else noun
    title = f"The service's copy of the {what} '{name}' is lost: {problem}."
    return VocableError(f"{noun}.lost", title, "It is made anew within a minute; then try again.")


def _is(model: Model, entry: ModelEntry, dtype: torch.dtype) -> bool:
    return model.entry == entry and model.dtype == dtype


def _collect() -> None:
    """Give memory back now: models hold reference cycles, and the device's allocator keeps what it has."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
