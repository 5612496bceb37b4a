"""Memory: what training is said to take, what is done when that is too much, and that it changes no number."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.embedding.read import read_embedding
from engine.errors import VocableError
from engine.models.estimate import MemoryEstimate, estimate_memory
from engine.models.load import Model
from engine.models.predict import frame, predict, whole
from engine.prompt.encode import Conditioning
from engine.sampling import generate
from engine.training.room import arrange, arranged
from tests.engine.models.families import FAMILIES, POOLED, Built
from tests.engine.models.test_families import build_job, dataset, picture, run

__all__ = ["dataset"]

Get = Callable[[str], Built]
Load = Callable[[Path], Model]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_counts_parameters_and_what_the_backward_pass_keeps(built: Get, loaded: Load, family: str) -> None:
    model = loaded(built(family).folder)
    estimates = [
        estimate_memory(loaded(path).entry, item_bytes=4, batch=2, width=32, height=64)
        for path in (built(family).folder, built(family).file)
    ]
    networks = (model.text_encoder, model.text_encoder_2, model.unet, model.vae)
    counted = 4 * sum(prod(p.shape) for network in networks if network is not None for p in network.parameters())
    assert estimates[0].networks == counted
    assert estimates[1].networks == pytest.approx(counted, rel=0.05)  # the file has a layer that is not used
    assert estimates[1].activations == estimates[0].activations
    assert 0.6 < estimates[0].activations / kept_for_backward(model, 2, 16, 32) < 1.7


def kept_for_backward(model: Model, batch: int, width: int, height: int) -> int:
    """Bytes that autograd really keeps."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.unet.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    text = torch.randn(batch, 77, model.entry.width, requires_grad=True)
    pooled = torch.randn(batch, POOLED) if model.entry.split else None
    framing = frame(model, [whole(8 * width, 8 * height)] * batch)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        noisy = torch.randn(batch, 4, height, width)
        predict(model, noisy, torch.tensor([5] * batch), Conditioning(text, pooled), framing)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


ESTIMATE = MemoryEstimate(networks=1000, vae=200, activations=1000)


@pytest.mark.parametrize(
    ("free", "chosen"),
    [(None, (False, False)), (3000, (False, False)), (2100, (False, True)), (1100, (True, True)), (0, (True, True))],
)
def test_the_vae_leaves_first_and_then_the_unet_is_computed_twice(free: int | None, chosen: tuple[bool, bool]) -> None:
    found = arrange(ESTIMATE, free_bytes=free, checkpointing="auto", offload="auto")
    assert (found.checkpointing, found.offload) == chosen


@pytest.mark.parametrize("free", [None, 10])
def test_what_the_recipe_says_is_done(free: int | None) -> None:
    for checkpointing, offload in (("on", "off"), ("off", "on")):
        found = arrange(ESTIMATE, free_bytes=free, checkpointing=checkpointing, offload=offload)  # type: ignore[arg-type]
        assert (found.checkpointing, found.offload) == (checkpointing == "on", offload == "on")


def test_a_run_in_little_room_gives_the_same_vectors_and_previews(
    built: Get, loaded: Load, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(built("sdxl").folder)
    moves: list[Any] = []
    monkeypatch.setattr(model.vae, "to", lambda *where: moves.append(where[0]) or model.vae)
    twice: list[bool] = []
    model.unet.mid_block.register_forward_pre_hook(lambda module, _: twice.append(module.gradient_checkpointing))
    results = []
    for name, choice in (("wide", "off"), ("narrow", "on")):
        job = build_job(tmp_path / name, built("sdxl").folder, dataset, checkpointing=choice, offload=choice)
        run(model, job)
        vectors = read_embedding(job.destination.read_bytes(), "mia").vectors
        results.append((vectors, [path.read_bytes()[-2000:] for path in sorted((job.folder / "images").iterdir())]))
        if choice == "off":
            assert not moves
            assert not any(twice)
            twice.clear()
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert any(twice)
    assert moves[0] == "cpu"
    assert moves[-1] == model.device
    assert "estimated_mib=" in (tmp_path / "narrow/log.txt").read_text()
    assert not model.unet.mid_block.gradient_checkpointing


def test_a_log_that_cannot_be_written_leaves_the_model_as_it_was(
    built: Get, loaded: Load, dataset: Path, tmp_path: Path
) -> None:
    model, path = loaded(built("sd1").folder), built("sd1").folder
    job = build_job(tmp_path / "run", path, dataset, checkpointing="on", offload="on")

    def refuse(facts: dict[str, Any]) -> None:
        raise VocableError("disk.full", "There is no room.")

    with pytest.raises(VocableError, match="no room"), arranged(model, job, refuse):
        pass
    assert not model.unet.is_gradient_checkpointing
    assert not model.vae_is_parked


def test_large_pictures_are_decoded_in_tiles(built: Get, loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(built("sd1").file)
    decode, tiled = model.vae.decode, []

    def watched(latents: torch.Tensor) -> Any:
        tiled.append(model.vae.use_tiling)
        return decode(latents)

    monkeypatch.setattr(model.vae, "decode", watched)
    picture(model, "a hat")
    monkeypatch.setattr(generate, "_WHOLE_PIXELS", 100)
    picture(model, "a hat")
    assert tiled == [False, True]
    assert model.vae.use_tiling is False, "pictures would be encoded in tiles from then on"
