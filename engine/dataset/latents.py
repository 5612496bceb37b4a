"""Latents of pictures, computed once and kept on disk by content.

Called by training and evaluation, in the worker. An entry is a function of picture bytes, size, crop rule and VAE
alone: pictures are encoded one at a time, because the bits of a result may depend on what else is in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engine.dataset.pictures import CROP_RULE, decode_picture, fit_picture, read_picture
from engine.errors import VocableError
from engine.files import write_atomically
from engine.models.load import Model


@dataclass(frozen=True)
class Latents:
    """The VAE's posterior of one picture, not yet scaled by the model's factor; on the CPU."""

    mean: Tensor
    """[C, h, w] float32."""
    std: Tensor
    """[C, h, w] float32."""
    transparent: bool = False
    """Some of the picture was see-through and was laid on white."""
    original: tuple[int, int] | None = None
    """Width and height of the upright picture before it was fitted, in pixels; None where it is not known."""

    def framing(self, factor: int) -> tuple[int, ...]:
        """How the picture came to be what it is; see `engine.models.predict.Framing`.

        Args:
            factor: pixels per latent cell.
        """
        height, width = (edge * factor for edge in self.mean.shape[-2:])
        before_width, before_height = self.original or (width, height)
        scale = max(width / before_width, height / before_height)
        top, left = round((before_height * scale - height) / 2), round((before_width * scale - width) / 2)
        return (before_height, before_width, top, left, height, width)


@dataclass(frozen=True)
class FetchedPicture:
    """A picture on its way to its latents: all is done that needs no device."""

    sha256: str
    """Of the picture's file, hexadecimal."""
    name: str
    """For errors."""
    latents: Latents | None
    """As the cache has them, or else `image` is given."""
    image: Image.Image | None = None
    """RGB, of the training size."""
    transparent: bool = False
    original: tuple[int, int] | None = None


@dataclass(frozen=True)
class Encoded:
    latents: Latents
    sha256: str
    """Of the picture's file, hexadecimal."""


class LatentCache:
    """Latents of one model's VAE at one size, in `folder`; entries that do not verify are made again.

    Args:
        on_write_error: told of an entry that could not be kept; the latents are right all the same.
    """

    def __init__(
        self,
        folder: Path,
        model: Model,
        *,
        width: int,
        height: int,
        on_write_error: Callable[[VocableError], None],
    ) -> None:
        self._folder = folder
        self._model = model
        self._size = (width, height)
        self._on_write_error = on_write_error
        self._base = f"{width}x{height} crop {CROP_RULE} vae {hash_vae(model)}"

    def encode(self, path: Path) -> Encoded:
        """Latents of the picture at `path`, from the cache or made now.

        Raises:
            VocableError: `dataset.picture` when it cannot be read, `dataset.latents` when the VAE overflows on it.
        """
        data = read_picture(path)
        fetched = self.fetch(hashlib.sha256(data).hexdigest(), data, path)
        return Encoded(self.finish(fetched), fetched.sha256)

    def fetch(self, sha256: str, data: bytes, path: Path) -> FetchedPicture:
        """Look a picture up in the cache, or else decode it; may run in any thread.

        Args:
            sha256: of `data`.
            path: only names the picture.

        Raises:
            VocableError: `dataset.picture` when it cannot be decoded.
        """
        kept = self.find(sha256)
        if kept is not None:
            return FetchedPicture(sha256, path.name, kept)
        decoded = decode_picture(data, path)
        fitted = fit_picture(decoded.image, *self._size)
        return FetchedPicture(sha256, path.name, None, fitted, decoded.transparent, decoded.image.size)

    def finish(self, fetched: FetchedPicture) -> Latents:
        """The latents of a fetched picture, encoded now and kept unless the cache has them; uses the device.

        Raises:
            VocableError: `dataset.latents` when the VAE overflows on it.
        """
        if fetched.latents is not None:
            return fetched.latents
        assert fetched.image is not None
        encoded = encode_picture(self._model, fetched.image, fetched.name)
        latents = replace(encoded, transparent=fetched.transparent, original=fetched.original)
        try:
            write_entry(self._entry(fetched.sha256), latents)
        except VocableError as error:
            self._on_write_error(error)
        return latents

    def find(self, sha256: str) -> Latents | None:
        """Latents of the picture whose file has this hash, if the cache has them; may run in any thread."""
        return read_entry(self._entry(sha256))

    def _entry(self, sha256: str) -> Path:
        key = hashlib.sha256(f"{self._base} picture {sha256}".encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.safetensors"


def encode_picture(model: Model, image: Image.Image, name: str) -> Latents:
    """Encode one RGB picture; `name` is for errors."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32).copy() / 127.5 - 1.0).permute(2, 0, 1)[None]
    with torch.no_grad(), model.vae_at_hand() as vae:
        posterior = vae.encode(pixels.to(device=model.device, dtype=vae.dtype)).latent_dist
        mean, std = (part[0].to(device="cpu", dtype=torch.float32) for part in (posterior.mean, posterior.std))
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise VocableError(
            "dataset.latents",
            f"The model's VAE overflows on the picture '{name}'.",
            "Train with train.precision = float32, or leave this picture out.",
        )
    return Latents(mean.contiguous(), std.contiguous())


def hash_vae(model: Model) -> str:
    """SHA-256 of the VAE's weights as they are on the device, with the device's kind: all that decides its output."""
    digest = hashlib.sha256(model.device.type.encode())
    for name, tensor in sorted(model.vae.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_entry(path: Path) -> Latents | None:
    """Read a cache entry; None when there is none or it is not what was written under this name."""
    try:
        return _parse_entry(path.read_bytes(), path.stem)
    except (OSError, ValueError):
        return None


def write_entry(path: Path, latents: Latents) -> None:
    """Write a cache entry and read it back before it takes its name. Raises VocableError `disk.*`."""
    transparent = torch.tensor([latents.transparent], dtype=torch.uint8)
    tensors = {
        "mean": latents.mean,
        "std": latents.std,
        "transparent": transparent,
        "original": torch.tensor(latents.original or (0, 0)),
        "sha256": _hash(latents, path.stem),
    }
    write_atomically(path, save(tensors), verify=lambda data: _verify(data, path.stem))


def _verify(data: bytes, key: str) -> None:
    try:
        _parse_entry(data, key)
    except ValueError as error:
        raise VocableError("disk.write", f"A cached picture was not written right ({error}).") from error


def _parse_entry(data: bytes, key: str) -> Latents:
    """Raises ValueError when `data` is no entry, or not the one that was written for `key`."""
    try:
        tensors = load(data)
        width, height = map(int, tensors["original"])
        original = (width, height) if width and height else None
        latents = Latents(tensors["mean"], tensors["std"], bool(tensors["transparent"].any()), original)
        written = tensors["sha256"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"not a cache entry: {error}") from error
    if not torch.equal(written, _hash(latents, key)):
        raise ValueError("its content does not have the hash that it names")
    return latents


def _hash(latents: Latents, key: str) -> Tensor:
    """[32] uint8: SHA-256 over the entry's key and all that it holds."""
    digest = hashlib.sha256(f"{key} {latents.transparent} {latents.original}".encode())
    for tensor in (latents.mean, latents.std):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
