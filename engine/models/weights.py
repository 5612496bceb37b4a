"""The tensors of a weight file, described before a number is read: safetensors, or torch's archives of any age.

Called by the catalog for what a file holds, and by `load` for the numbers themselves. No torch. Files are foreign:
pickles go through the allow-list of `engine.embedding.pickles`, and bytes are read when they are looked at and never
mapped, so that a file that shrinks meanwhile is an error and not the death of the process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.embedding import archive
from engine.embedding.archive import decode_archive
from engine.embedding.legacy import decode_legacy
from engine.embedding.pickles import Global, Limits
from engine.embedding.standins import KNOWN
from engine.embedding.stored import StoredTensor
from engine.embedding.tensors import decode_tensors
from engine.errors import VocableError

MAX_HEADER = 32 << 20
"""Bytes of a safetensors header: that of SDXL has some 300 KB, pictures among the metadata make it larger."""

MAX_TENSORS = 1 << 16
LIMITS = Limits(pickle_bytes=32 << 20, steps=4_000_000, members=MAX_TENSORS, verify_all=False)

_LEGACY = b"\x80"
_LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint"
_KNOWN = {**KNOWN, _LIGHTNING: Global(_LIGHTNING.replace(" ", "."), is_key=True)}
"""The first checkpoints that people shared hold what their trainer's callbacks knew, under the callback's name."""


@dataclass(frozen=True)
class Weights:
    """Tensors and texts of one file, which must stay open while tensors are read."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    """Of safetensors; of other files, plain values beside the tensors."""


class FileBytes:
    """A file as bytes that are read when they are looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise _unreadable(path, "it is not an ordinary file")
        self._size = status.st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice, /) -> bytes | memoryview:
        start, end, _ = span.indices(self._size)
        data = bytearray(max(0, end - start))
        view, done = memoryview(data), 0
        while done < len(data):
            try:
                count = os.preadv(self._handle, [view[done:]], start + done)
            except OSError as error:
                raise _unreadable(self._path, error.strerror or str(error)) from error
            if not count:
                raise _unreadable(self._path, "it became shorter while it was read")
            done += count
        return view

    def close(self) -> None:
        os.close(self._handle)


@contextmanager
def open_weights(path: Path) -> Iterator[Weights]:
    """Describe the tensors of a file, which stays open for reading them while the context lasts.

    Raises:
        VocableError: `model.unreadable`, for what is no weight file, is damaged, or asks for more than tensors.
    """
    try:
        data = FileBytes(path)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        with _as_model(path):
            weights = _decode(path, data)
        yield weights
    finally:
        data.close()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while tensors of `path` are read into `model.unreadable`."""
    with _as_model(path):
        yield


def _decode(path: Path, data: FileBytes) -> Weights:
    head = bytes(data[0:9])
    if head.startswith(archive.SIGNATURE):
        return _from_pickled(path, decode_archive(data, known=_KNOWN, explain=_explain, limits=LIMITS))
    if head.startswith(_LEGACY):
        return _from_pickled(path, decode_legacy(data, known=_KNOWN, explain=_explain, limits=LIMITS))
    if head[8:] != b"{":
        raise _unreadable(path, "it is neither safetensors nor a file that torch wrote")
    tensors, metadata = decode_tensors(data, max_header=MAX_HEADER, max_tensors=MAX_TENSORS)
    return Weights(tensors, metadata)


def _from_pickled(path: Path, value: Any) -> Weights:
    """The tensors of a state dictionary, which may lie in others under `state_dict`."""
    plain: dict[str, str] = {}
    for _ in range(3):
        if not isinstance(value, dict):
            break
        plain |= {key: str(item) for key, item in value.items() if isinstance(key, str) and type(item) in (int, str)}
        if not isinstance(value.get("state_dict"), dict):
            tensors = {key: item for key, item in value.items() if isinstance(item, StoredTensor)}
            return Weights({key: item for key, item in tensors.items() if isinstance(key, str)}, plain)
        value = value["state_dict"]
    raise _unreadable(path, "it holds no tensors by name")


def _explain(name: str) -> VocableError:
    """The error for a name that no checkpoint needs, `module name` as in the file."""
    shown = ascii(name.replace(" ", "."))[1:-1][:80]
    return VocableError(
        "model.unreadable",
        f"it asks for {shown}, which no checkpoint needs; nothing in it was run",
        "It may be made to do harm: delete it, or convert it where you trust it to safetensors.",
    )


@contextmanager
def _as_model(path: Path) -> Iterator[None]:
    """The containers' readers speak of embeddings; what is wrong is the same, its code is that of models."""
    try:
        yield
    except VocableError as error:
        if error.code == "model.unreadable" and error.title.startswith(_PREFIX):
            raise
        title = error.title.removeprefix("The file cannot be read: ").rstrip(".")
        title = title[:1].lower() + title[1:].replace("embedding", "checkpoint")
        hint = error.hint if error.code == "model.unreadable" else "Copy or download the model again, whole."
        raise VocableError("model.unreadable", f"{_PREFIX}{path} cannot be used: {title}.", hint) from None


_PREFIX = "The model "


def _unreadable(path: Path, problem: str) -> VocableError:
    return VocableError(
        "model.unreadable", f"{_PREFIX}{path} cannot be used: {problem}.", "Copy or download the model again, whole."
    )
