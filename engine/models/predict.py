"""One call of the U-Net, with whatever its family wants to be told beside the text.

Called by training, evaluation and sampling. SDXL gets the pooled text and the framing of each picture (Podell et al.
2023, 2.2); an inpainting U-Net gets a mask that covers everything and the empty picture behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.models.load import Model
from engine.prompt.encode import Conditioning

Framing = tuple[int, ...]
"""Height and width of the picture as it was, top and left of the part that is shown of it once scaled, height and
width as it is; all in pixels."""


def whole(width: int, height: int) -> Framing:
    """The framing of a picture that is neither scaled nor cut."""
    return (height, width, 0, 0, height, width)


def frame(model: Model, framings: Sequence[Framing]) -> Tensor | None:
    """[B, 6] float32 on the model's device for `predict`; None for models that are not told."""
    if model.text_encoder_2 is None:
        return None
    # In half precision the larger sizes would be rounded.
    return torch.tensor(framings, dtype=torch.float32).to(model.device, non_blocking=True)


def predict(
    model: Model, latents: Tensor, timesteps: Tensor, conditioning: Conditioning, framing: Tensor | None
) -> Tensor:
    """What the U-Net predicts of noised latents.

    Args:
        latents: [B, C, h, w] in the model's dtype.
        timesteps: [B] or a single one.
        conditioning: of B prompts.
        framing: from `frame`.

    Returns:
        [B, C, h, w] in the model's dtype.
    """
    if model.entry.inpainting:
        blank = _blank(model, latents.shape[-2], latents.shape[-1])
        latents = torch.cat([latents, blank.expand(len(latents), -1, -1, -1)], dim=1)
    if conditioning.pooled is None:
        predicted: Tensor = model.unet(latents, timesteps, encoder_hidden_states=conditioning.hidden).sample
        return predicted
    added = {"text_embeds": conditioning.pooled, "time_ids": framing}
    predicted = model.unet(
        latents, timesteps, encoder_hidden_states=conditioning.hidden, added_cond_kwargs=added
    ).sample
    return predicted


@torch.no_grad()
def _blank(model: Model, height: int, width: int) -> Tensor:
    """[1, 1 + C, h, w]: the mask and the latents of a grey picture, encoded once for each size."""
    key = (height, width)
    if key not in model.blanks:
        edges = (height * model.latent_factor, width * model.latent_factor)
        with model.vae_at_hand() as vae:
            grey = torch.zeros((1, vae.config.in_channels, *edges), device=model.device, dtype=vae.dtype)
            mean = vae.encode(grey).latent_dist.mean * model.scaling_factor
        mask = torch.ones_like(mean[:, :1])
        model.blanks[key] = torch.cat([mask, mean], dim=1).to(device=model.device, dtype=model.dtype)
    return model.blanks[key]
