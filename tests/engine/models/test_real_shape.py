"""The real shape of SD 1.5 with random weights: that what works on tiny models works on the size people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from engine.embedding.read import read_embedding
from engine.models.catalog import read_entry
from engine.models.load import load_model
from tests.engine.models.families import unet_key, vae_tensors
from tests.engine.models.test_families import build_job, dataset, run

__all__ = ["dataset"]

DTYPE = torch.bfloat16
UNET = {"cross_attention_dim": 768, "attention_head_dim": 8}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


def make_checkpoint(path: Path) -> None:
    """A single file in the original layout, its numbers drawn small enough to stay finite in half precision."""
    with torch.device("meta"):
        unet, vae, text = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**CLIP))
    for network in (unet, vae, text):
        network.to(DTYPE).to_empty(device="cpu")
        for name, parameter in network.named_parameters():
            is_scale = "norm" in name and name.endswith("weight")
            parameter.data.fill_(1) if is_scale else parameter.data.normal_(std=0.02)
    tensors = {f"model.diffusion_model.{unet_key(unet, key)}": value for key, value in unet.state_dict().items()}
    tensors |= vae_tensors(vae)
    tensors |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in text.state_dict().items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


@pytest.mark.slow
def test_a_word_is_taught_to_a_model_of_the_real_shape(tmp_path: Path, dataset: Path) -> None:
    torch.manual_seed(1)
    path = tmp_path / "real.safetensors"
    make_checkpoint(path)
    entry = read_entry(path)
    assert (entry.family, entry.width, entry.size, entry.prediction_type) == ("sd1", 768, 512, "epsilon")
    model = load_model(entry, device=torch.device("cpu"), dtype=DTYPE)
    assert sum(parameter.numel() for parameter in model.unet.parameters()) == 859_520_964
    job = build_job(tmp_path / "run", path, dataset, size=64, steps=2, batch_size=1, precision="bfloat16")
    events = run(model, job)
    assert events[-1].outcome == "finished"
    word = read_embedding(job.destination.read_bytes(), "mia")
    assert word.family == "sd1"
    assert np.isfinite(word.vectors).all()
    assert word.step == 2
    assert len(list((job.folder / "images").iterdir())) == 1
