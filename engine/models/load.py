"""Loads a model onto a device: tokenizer, text encoders, U-Net and VAE, all frozen; folders and single files alike.

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
from diffusers import DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from engine.errors import VocableError
from engine.models.catalog import ModelEntry
from engine.models.parts import load_parts
from engine.models.vocabulary import open_tokenizer, read_second_pad_id, tokenizer_files
from engine.prompt.conditioning import ConditioningCache
from engine.prompt.tokenizer import PromptTokenizer
from engine.randomness import torch_generator


@dataclass
class Model:
    """A model on its device: in evaluation mode, and no parameter requires a gradient."""

    entry: ModelEntry
    tokenizer: PromptTokenizer
    text_encoder: Any
    """`transformers.CLIPTextModel` in `dtype`; the first of SDXL's two."""
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
    text_encoder_2: Any = None
    """`transformers.CLIPTextModelWithProjection` of SDXL, else None."""
    second_pad_id: int = 0
    """Fills a chunk behind its end token for the second text encoder."""
    blanks: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """By height and width in latents: what an inpainting U-Net is told beside them."""
    conditioning: ConditioningCache = field(default_factory=ConditioningCache)
    """Of prompts that sampling has encoded."""
    vae_is_parked: bool = False
    """The VAE lies in main memory and comes to the device when it is used."""

    def park_vae(self) -> None:
        """Keep the VAE off the device until `unpark_vae`, except while `vae_at_hand` lasts."""
        self.vae_is_parked = True
        self.vae.to("cpu")

    def unpark_vae(self) -> None:
        if self.vae_is_parked:
            self.vae_is_parked = False
            self.vae.to(self.device)

    @contextmanager
    def vae_at_hand(self) -> Iterator[Any]:
        """The VAE, on the device while the context lasts."""
        if self.vae_is_parked:
            self.vae.to(self.device)
        try:
            yield self.vae
        finally:
            if self.vae_is_parked:
                self.vae.to("cpu")


def load_model(entry: ModelEntry, *, device: torch.device, dtype: torch.dtype) -> Model:
    """Load every part of a model. Memory never holds more than the model and one tensor of its files.

    Raises:
        VocableError: `model.unreadable` with the file that is missing, damaged, or does not fit its configuration.
    """
    tokenizer = open_tokenizer(*tokenizer_files(entry))
    with _quiet_libraries():
        parts = load_parts(entry, device=device, dtype=dtype)
    noise = _noise_schedule(entry, parts.scheduler)
    vae = parts.networks["vae"]
    model = Model(
        entry=entry,
        tokenizer=tokenizer,
        text_encoder=parts.networks["text_encoder"],
        text_encoder_2=parts.networks.get("text_encoder_2"),
        unet=parts.networks["unet"],
        vae=vae,
        scheduler_config=parts.scheduler,
        alphas_cumprod=noise.alphas_cumprod.to(device=device, dtype=torch.float32),
        prediction_type=str(noise.config.prediction_type),
        device=device,
        dtype=dtype,
        latent_factor=2 ** (len(vae.config.block_out_channels) - 1),
        scaling_factor=float(vae.config.scaling_factor),
        second_pad_id=read_second_pad_id(entry) if entry.split else 0,
    )
    if not entry.prediction_type:
        model.prediction_type = probe_prediction(model)
        model.scheduler_config = model.scheduler_config | {"prediction_type": model.prediction_type}
    return model


@torch.no_grad()
def probe_prediction(model: Model) -> str:
    """Ask a U-Net of which no file says whether it predicts `epsilon` or `v_prediction`.

    At the last timestep its input is all but pure noise: a prediction of the noise is then nearly the input itself,
    one of the velocity has next to nothing of it (Salimans and Ho 2022, appendix D).
    """
    channels, edge = model.unet.config.out_channels, 32
    noise = torch.randn((1, channels, edge, edge), generator=torch_generator(0, "prediction probe"))
    inputs = noise
    if model.entry.inpainting:
        inputs = torch.cat([noise, torch.ones(1, 1, edge, edge), torch.zeros_like(noise)], dim=1)
    text = torch.zeros((1, 77, model.entry.width), device=model.device, dtype=model.dtype)
    timestep = torch.tensor([len(model.alphas_cumprod) - 1], device=model.device)
    inputs = inputs.to(device=model.device, dtype=model.dtype)
    predicted = model.unet(inputs, timestep, encoder_hidden_states=text).sample.float().cpu()
    likeness = torch.nn.functional.cosine_similarity(predicted.flatten(), noise.flatten(), dim=0)
    return "epsilon" if likeness > 0.5 else "v_prediction"


def _noise_schedule(entry: ModelEntry, config: dict[str, Any]) -> Any:
    """The `diffusers.DDPMScheduler` of a configuration, which knows every kind of betas, zero terminal SNR included."""
    try:
        return DDPMScheduler.from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _unreadable(entry, "scheduler/scheduler_config.json", str(error)) from error


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
