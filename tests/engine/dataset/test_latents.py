from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.dataset.latents import LatentCache, Latents, read_entry
from engine.dataset.pictures import decode_picture, read_picture
from engine.errors import VocableError
from engine.models.load import Model
from engine.models.starter.sample import TRAIN_DIR

PICTURE = sorted(TRAIN_DIR.glob("*.png"))[0]


def no_trouble(error: VocableError) -> None:
    raise error


def make_cache(folder: Path, model: Model, size: int = 64) -> LatentCache:
    return LatentCache(folder, model, width=size, height=size, on_write_error=no_trouble)


def equal(first: Latents, second: Latents) -> bool:
    return torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std)


def pixels(path: Path) -> torch.Tensor:
    """[H, W, 3] in -1 to 1."""
    image = np.asarray(decode_picture(read_picture(path), path).image, dtype=np.float32)
    return torch.tensor(image / 127.5 - 1)


def entry_of(folder: Path) -> Path:
    (found,) = folder.rglob("*.safetensors")
    return found


def test_latents_decode_to_their_own_picture(tmp_path: Path, starter: Model) -> None:
    latents = make_cache(tmp_path, starter).encode(PICTURE).latents
    with torch.no_grad():
        decoded = starter.vae.decode(latents.mean[None]).sample[0].permute(1, 2, 0)
    errors = {path: (decoded - pixels(path)).abs().mean().item() for path in TRAIN_DIR.glob("*.png")}
    assert min(errors, key=errors.__getitem__) == PICTURE
    assert errors[PICTURE] < 0.2
    assert (latents.std > 0).all()


def test_the_second_reading_comes_from_the_disk_and_is_the_same(
    tmp_path: Path, starter: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_cache(tmp_path, starter).encode(PICTURE)
    cache = make_cache(tmp_path, starter)
    monkeypatch.setattr(type(starter.vae), "encode", None)
    assert equal(first.latents, cache.encode(PICTURE).latents)


def test_a_damaged_entry_is_made_again(tmp_path: Path, starter: Model) -> None:
    cache = make_cache(tmp_path, starter)
    first = cache.encode(PICTURE).latents
    entry = entry_of(tmp_path)
    data = bytearray(entry.read_bytes())
    data[-5] ^= 1
    entry.write_bytes(data)
    assert read_entry(entry) is None
    assert equal(cache.encode(PICTURE).latents, first)
    assert read_entry(entry) is not None


def test_an_entry_under_another_key_is_not_believed(tmp_path: Path, starter: Model) -> None:
    make_cache(tmp_path, starter).encode(PICTURE)
    entry = entry_of(tmp_path)
    renamed = entry.rename(entry.with_name(f"{'0' * 64}.safetensors"))
    assert read_entry(renamed) is None


def test_size_and_content_make_entries_of_their_own(tmp_path: Path, starter: Model) -> None:
    make_cache(tmp_path, starter).encode(PICTURE)
    make_cache(tmp_path, starter, size=32).encode(PICTURE)
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64), "red").save(other)
    make_cache(tmp_path, starter).encode(other)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_a_cache_that_cannot_be_written_is_told_of_and_does_not_stop(tmp_path: Path, starter: Model) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    troubles: list[VocableError] = []
    cache = LatentCache(blocked, starter, width=64, height=64, on_write_error=troubles.append)
    assert cache.encode(PICTURE).latents.mean.shape == (4, 16, 16)
    assert [error.code for error in troubles] == ["disk.write"]
