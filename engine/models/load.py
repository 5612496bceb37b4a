"""Loads a model folder onto a device: tokenizer, text encoder, U-Net and VAE, all frozen.

Called by the worker only. Files are read into memory, never mapped, so that one that shrinks while it is read is an
error and not the death of the process; nothing is ever fetched from a hub.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers import CLIPTextModel
from transformers.utils import logging as transformers_logging

from engine.errors import VocableError
from engine.models.catalog import ModelEntry, read_config, weights_file
from engine.prompt.conditioning import ConditioningCache
from engine.prompt.tokenizer import PromptTokenizer, load_tokenizer


@dataclass
class Model:
    """A model on its device: in evaluation mode, and no parameter requires a gradient."""

    entry: ModelEntry
    tokenizer: PromptTokenizer
    text_encoder: Any
    """`transformers.CLIPTextModel` in `dtype`."""
    unet: Any
    """`diffusers.UNet2DConditionModel` in `dtype`, channels-last."""
    vae: Any
    """`diffusers.AutoencoderKL`; float32 when its configuration says that half precision overflows, else `dtype`."""
    scheduler_config: dict[str, Any]
    """As in the model's own file; keys it leaves out are not filled in."""
    alphas_cumprod: Tensor
    """[T] float32 on `device`: share of the signal left in the noised latents at each training timestep."""
    prediction_type: str
    """What the U-Net predicts: `epsilon`, `v_prediction` or `sample`."""
    device: torch.device
    dtype: torch.dtype
    latent_factor: int
    """Pixels per latent cell, along each edge."""
    scaling_factor: float
    """Latents = VAE output times this."""
    conditioning: ConditioningCache = field(default_factory=ConditioningCache)
    """Of prompts that sampling has encoded."""


def load_model(entry: ModelEntry, *, device: torch.device, dtype: torch.dtype) -> Model:
    """Load every part of a model. Takes about twice the size of its largest file in memory for a moment.

    Raises:
        VocableError: `model.unreadable` with the file that is missing, damaged, or does not fit its configuration.
    """
    tokenizer = load_tokenizer(entry.path / "tokenizer")
    scheduler_config, _ = read_config(entry.path, "scheduler/scheduler_config.json")
    vae_config, _ = read_config(entry.path, "vae/config.json")
    vae_dtype = torch.float32 if vae_config.get("force_upcast", True) else dtype
    noise = _noise_schedule(entry, scheduler_config)
    with _quiet_libraries():
        text_encoder = _load_part(CLIPTextModel, entry, "text_encoder", dtype)
        unet = _load_part(UNet2DConditionModel, entry, "unet", dtype)
        vae = _load_part(AutoencoderKL, entry, "vae", vae_dtype)
    for part in (text_encoder, unet, vae):
        part.requires_grad_(False).eval().to(device)
    for part in (unet, vae):
        part.to(memory_format=torch.channels_last)
    return Model(
        entry=entry,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        scheduler_config=scheduler_config,
        alphas_cumprod=noise.alphas_cumprod.to(device=device, dtype=torch.float32),
        prediction_type=str(noise.config.prediction_type),
        device=device,
        dtype=dtype,
        latent_factor=2 ** (len(vae.config.block_out_channels) - 1),
        scaling_factor=float(vae.config.scaling_factor),
    )


def _noise_schedule(entry: ModelEntry, config: dict[str, Any]) -> Any:
    """The `diffusers.DDPMScheduler` of a configuration, which knows every kind of betas, zero terminal SNR included."""
    try:
        return DDPMScheduler.from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _unreadable(entry, "scheduler/scheduler_config.json", str(error)) from error


def _load_part(kind: Any, entry: ModelEntry, part: str, dtype: torch.dtype) -> Any:
    path = weights_file(entry.path, part)
    name = f"{part}/{path.name}"
    try:
        network, found = kind.from_pretrained(
            str(path.parent),
            dtype=dtype,
            variant="fp16" if path.name.endswith(".fp16.safetensors") else None,
            use_safetensors=True,
            local_files_only=True,
            disable_mmap=True,
            output_loading_info=True,
        )
    except Exception as error:
        # The libraries raise whatever their parsers raise: KeyError, SafetensorError, RuntimeError, OSError, ...
        raise _unreadable(entry, name, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    for problem in ("missing_keys", "mismatched_keys"):
        if found[problem]:
            first = sorted(str(key) for key in found[problem])[0]
            reason = f"{len(found[problem])} tensors are {problem.split('_')[0]}, {first} among them"
            raise _unreadable(entry, name, reason)
    return network


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries' warnings and progress bars off the worker's output while they load."""
    bars = transformers_logging.is_progress_bar_enabled()
    levels = [(library, library.get_verbosity()) for library in (transformers_logging, diffusers_logging)]
    transformers_logging.disable_progress_bar()
    for library, _ in levels:
        library.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # diffusers leaves closing the weight file to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
        for library, level in levels:
            library.set_verbosity(level)


def _unreadable(entry: ModelEntry, file: str, reason: str) -> VocableError:
    title = f"The model {entry.path} cannot be loaded: {file} does not read ({reason})."
    return VocableError("model.unreadable", title, "Copy the model again, whole.")
