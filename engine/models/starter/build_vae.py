"""Trains the VAE of the starter model and encodes the training pictures with it. Called by `build.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import nn

from engine.models.starter.build_loop import Figures, Job, Trainee, generator, save_atomically, train

_STAGE = 1
_DECODER_STAGE = 3
_KL_WEIGHT = 1e-3
_GRADIENT_WEIGHT = 0.5


def make_vae(channels: tuple[int, ...]) -> AutoencoderKL:
    levels = len(channels)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=4,
        mid_block_add_attention=False,
        norm_num_groups=8,
        sample_size=64,
    )


def train_vae(job: Job, pixels: NDArray[np.uint8], unseen: NDArray[np.uint8]) -> AutoencoderKL | None:
    """The trained VAE (its moving average), or None when the job stopped before the plan was fulfilled.

    `pixels` and `unseen` are (N, 64, 64, 3) uint8; the PSNR is measured on `unseen`.
    """
    recipe, device = job.recipe, job.device
    torch.manual_seed(recipe.seed)
    vae = make_vae(recipe.vae_channels).to(device, memory_format=torch.channels_last)

    def loss(step: int, share: slice) -> tuple[torch.Tensor, Figures]:
        random = generator(recipe.seed, _STAGE, step)
        chosen = torch.randint(len(pixels), (recipe.vae.batch,), generator=random)
        batch = to_pixels(pixels[chosen[share].numpy()], device)
        posterior = vae.encode(batch).latent_dist
        noise = torch.randn(recipe.vae.batch, *posterior.mean.shape[1:], generator=random)[share].to(device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        total, off = _unlikeness(decoded, batch)
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return total + _KL_WEIGHT * kl, {"l1": off.item(), "kl": kl.item()}

    def check() -> Figures:
        return {"psnr_db": round(psnr(vae, unseen, device), 2)}

    return vae if train(job, "vae", recipe.vae, Trainee({"vae": vae}, loss, check)) else None


def train_decoder(
    job: Job, vae: AutoencoderKL, pixels: NDArray[np.uint8], latents: torch.Tensor, unseen: NDArray[np.uint8]
) -> bool:
    """Train the decoder on, with the encoder fixed, so that the latents which the U-Net learned stay what they are.

    `latents` (N, 2, 4, 16, 16) are the posterior means and deviations of `pixels`. False when the job stopped early.
    """
    recipe, device = job.recipe, job.device

    def loss(step: int, share: slice) -> tuple[torch.Tensor, Figures]:
        random = generator(recipe.seed, _DECODER_STAGE, step)
        chosen = torch.randint(len(pixels), (recipe.decoder.batch,), generator=random)
        noise = torch.randn(recipe.decoder.batch, *latents.shape[2:], generator=random)[share]
        mean, deviation = latents[chosen[share]].to(torch.float32).unbind(1)
        batch = to_pixels(pixels[chosen[share].numpy()], device)
        total, off = _unlikeness(vae.decode((mean + deviation * noise).to(device)).sample, batch)
        return total, {"l1": off.item()}

    def check() -> Figures:
        return {"psnr_db": round(psnr(vae, unseen, device), 2)}

    trainee = Trainee({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}, loss, check)
    return train(job, "decoder", recipe.decoder, trainee)


def to_pixels(pixels: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1], channels last."""
    tensor = torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2)
    return tensor.to(torch.float32).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels: NDArray[np.uint8], device: torch.device) -> float:
    """Peak signal to noise in dB of decoding the posterior's mean, over all pictures together."""
    squares = []
    for start in range(0, len(pixels), 64):
        batch = to_pixels(pixels[start : start + 64], device)
        decoded = vae.decode(vae.encode(batch).latent_dist.mean).sample.clamp(-1, 1)
        squares.append((decoded - batch).square().mean(dim=(1, 2, 3)))
    return float(10 * torch.log10(4 / torch.cat(squares).mean()))


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pixels: NDArray[np.uint8], path: Path, device: torch.device) -> torch.Tensor:
    """Posterior means and deviations of all pictures, (N, 2, 4, 16, 16) float16 on the CPU; kept at `path`."""
    if path.exists():
        stored: torch.Tensor = torch.load(path, weights_only=True)
        return stored
    parts = []
    for start in range(0, len(pixels), 128):
        posterior = vae.encode(to_pixels(pixels[start : start + 128], device)).latent_dist
        parts.append(torch.stack([posterior.mean, posterior.std], dim=1).to("cpu", torch.float16))
    latents = torch.cat(parts).contiguous()
    save_atomically(latents, path)
    return latents


def _unlikeness(decoded: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a decoded batch, and its mean absolute error."""
    off = (decoded - pixels).abs().mean()
    return off + nn.functional.mse_loss(decoded, pixels) + _GRADIENT_WEIGHT * _edges(decoded - pixels), off


def _edges(difference: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the pictures' gradients: what keeps lines and eyes sharp."""
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
