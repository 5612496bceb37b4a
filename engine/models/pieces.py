"""Tensors on their way from a file into a network: each is read when its place is filled, and converted at once.

Called by `load`. A network is made without numbers (torch's meta device) and filled tensor by tensor, so that memory
never holds more than the network and one tensor of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.embedding.stored import StoredTensor
from engine.errors import VocableError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Of attention in autoencoders, before diffusers 0.18."""


@dataclass(frozen=True)
class Piece:
    """A tensor that is still in its file. Behaves as a tensor where diffusers' conversion of checkpoints cuts one."""

    stored: StoredTensor
    outline: Tensor
    """Of the shape that the tensor will have; without numbers."""
    cuts: tuple[Callable[[Tensor], Tensor], ...] = ()

    @property
    def shape(self) -> torch.Size:
        return self.outline.shape

    @property
    def ndim(self) -> int:
        return self.outline.ndim

    @property
    def T(self) -> Piece:
        return self._cut(lambda tensor: tensor.T)

    def __getitem__(self, key: Any) -> Piece:
        return self._cut(lambda tensor: tensor[key])

    def clone(self) -> Piece:
        return self

    def detach(self) -> Piece:
        return self

    def contiguous(self) -> Piece:
        return self

    def read(self, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The tensor, contiguous, with memory of its own."""
        tensor = _read(self.stored)
        for cut in self.cuts:
            tensor = cut(tensor)
        moved = tensor.to(device=device, dtype=dtype).contiguous()
        is_part = moved.untyped_storage().nbytes() > moved.nbytes
        return moved.clone() if is_part else moved

    def _cut(self, cut: Callable[[Tensor], Tensor]) -> Piece:
        return replace(self, outline=cut(self.outline), cuts=(*self.cuts, cut))


def make_pieces(tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """Pieces by the names of their tensors."""
    return {name: Piece(stored, torch.empty(stored.shape, device="meta")) for name, stored in tensors.items()}


def fill(network: nn.Module, pieces: Mapping[str, Piece], *, device: torch.device, dtype: torch.dtype) -> None:
    """Give a network that was made on the meta device its numbers; what it does not ask for is not read.

    Raises:
        ValueError: tensors are missing or of another shape.
        VocableError: a tensor cannot be read.
    """
    found = _match(network, pieces)
    filled = {name: piece.read(device=device, dtype=dtype) for name, piece in found.items()}
    network.load_state_dict(filled, assign=True)
    for name, buffer in network.named_buffers():
        if not name.endswith("position_ids"):
            raise ValueError(f"nothing is known of its {name}")
        owner = network.get_submodule(name.rpartition(".")[0])
        owner.position_ids = torch.arange(buffer.shape[-1], device=device).expand(1, -1)
    network.requires_grad_(False).eval()


def _match(network: nn.Module, pieces: Mapping[str, Piece]) -> dict[str, Piece]:
    known = {_modern(name): piece for name, piece in pieces.items()}
    found: dict[str, Piece] = {}
    missing: list[str] = []
    mismatched: list[str] = []
    for name, wanted in network.state_dict().items():
        # What transformers calls the text model has lost and gained a prefix over the years.
        piece = known.get(name) or known.get(f"text_model.{name}") or known.get(name.removeprefix("text_model."))
        if piece is not None and piece.ndim == wanted.ndim + 2 and piece.shape[wanted.ndim :] == (1, 1):
            piece = piece[..., 0, 0]
        if piece is None:
            missing.append(name)
        elif piece.shape != wanted.shape:
            mismatched.append(name)
        else:
            found[name] = piece
    for problem, names in (("missing", missing), ("mismatched", mismatched)):
        if names:
            raise ValueError(f"{len(names)} tensors are {problem}, {min(names)} among them")
    return found


def _modern(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        if ".attentions." in name:
            name = name.replace(old, new)
    return name


def _read(stored: StoredTensor) -> Tensor:
    dtype = _DTYPES.get(stored.storage.dtype)
    if dtype is None:
        title = f"its numbers are of type {stored.storage.dtype}; only {', '.join(_DTYPES)} are read"
        raise VocableError("model.unreadable", title, "Use the model in half or single precision.")
    raw = stored.storage.load()
    if len(raw) != stored.storage.count * dtype.itemsize:
        raise VocableError("model.unreadable", "its numbers are cut short", "Copy or download the model again, whole.")
    if not raw:
        return torch.empty(stored.shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=dtype).as_strided(stored.shape, stored.strides, stored.offset)
