"""Trains the text encoder and the U-Net of the starter model together, on latents. Called by `build.py`."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.models.starter.build_loop import Figures, Job, Trainee, generator, train

_STAGE = 2
_CAPTION_DROPOUT = 0.1
_SNR_CAP = 5.0
_CHECK_TIMESTEPS = 8


def make_scheduler() -> DDPMScheduler:
    """v-prediction on linear betas: their end hides even the mean of the latents (SNR 4e-5), so that colours are
    learnt from the prompt and not leaked by the noise; every scheduler of diffusers can sample from this."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def make_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            projection_dim=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet(channels: tuple[int, ...], attention: tuple[bool, ...], text_width: int) -> UNet2DConditionModel:
    """One layer a block on 16x16 latents; cross-attention at the resolutions that `attention` marks."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)),
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def tokenize(tokenizer: CLIPTokenizer, captions: list[list[str]]) -> torch.Tensor:
    """(pictures, captions each, 77) int16."""
    flat = [text for texts in captions for text in texts]
    ids = tokenizer(flat, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    return torch.tensor(ids, dtype=torch.int16).view(len(captions), -1, tokenizer.model_max_length)


def train_unet(
    job: Job,
    tokenizer: CLIPTokenizer,
    pictures: tuple[torch.Tensor, torch.Tensor],
    unseen: tuple[torch.Tensor, torch.Tensor],
) -> tuple[CLIPTextModel, UNet2DConditionModel] | None:
    """The trained text encoder and U-Net (moving averages), or None when the job stopped early.

    `pictures` and `unseen` are (latents, ids): latents (N, 2, 4, 16, 16), mean and deviation in the U-Net's scale, and
    token ids (N, captions, 77).
    """
    recipe, device = job.recipe, job.device
    torch.manual_seed(recipe.seed + 1)
    text_encoder = make_text_encoder(tokenizer, recipe.text_width, recipe.text_layers).to(device).train()
    unet = make_unet(recipe.unet_channels, recipe.unet_attention, recipe.text_width)
    unet = unet.to(device, memory_format=torch.channels_last).train()
    alphas = make_scheduler().alphas_cumprod.to(device)
    empty = tokenize(tokenizer, [[""]])[0, 0]
    latents, ids = pictures

    def loss(step: int, share: slice) -> tuple[torch.Tensor, Figures]:
        random = generator(recipe.seed, _STAGE, step)
        batch = recipe.unet.batch
        chosen = torch.randint(len(latents), (batch,), generator=random)
        worded = ids[chosen, torch.randint(ids.shape[1], (batch,), generator=random)]
        worded[torch.rand(batch, generator=random) < _CAPTION_DROPOUT] = empty
        # One timestep from each of `batch` equal ranges: less noise in the loss than independent draws.
        timesteps = ((torch.arange(batch) + torch.rand(batch, generator=random)) * (len(alphas) / batch)).long()
        noises = torch.randn(2, batch, *latents.shape[2:], generator=random)
        parts = latents[chosen[share]], worded[share], timesteps[share], noises[:, share]
        error, snr = _error(text_encoder, unet, alphas, *parts)
        weights = (snr + 1).clamp(max=_SNR_CAP) / (snr + 1)
        return (error * weights).mean(), {"v_mse": error.mean().item()}

    @torch.no_grad()
    def check() -> Figures:
        random = generator(recipe.seed, _STAGE, -1)
        errors = []
        for part in range(_CHECK_TIMESTEPS):
            timesteps = torch.full((len(unseen[0]),), int((part + 0.5) * len(alphas) / _CHECK_TIMESTEPS))
            noises = torch.randn(2, *unseen[0][:, 0].shape, generator=random)
            errors.append(_error(text_encoder, unet, alphas, unseen[0], unseen[1][:, 0], timesteps, noises)[0].mean())
        return {"unseen_v_mse": round(torch.stack(errors).mean().item(), 5)}

    trainee = Trainee({"text_encoder": text_encoder, "unet": unet}, loss, check)
    return (text_encoder.eval(), unet.eval()) if train(job, "unet", recipe.unet, trainee) else None


def _error(
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    alphas: torch.Tensor,
    latents: torch.Tensor,
    ids: torch.Tensor,
    timesteps: torch.Tensor,
    noises: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean squared error of the predicted v of each picture, and the signal to noise ratio at its timestep. `noises`
    (2, N, 4, 16, 16) draws the latents from their posterior and then hides them."""
    device = alphas.device
    mean, deviation = latents.to(torch.float32).unbind(1)
    clean = (mean + deviation * noises[0]).to(device)
    noise = noises[1].to(device)
    timesteps = timesteps.to(device)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    noisy = (alpha.sqrt() * clean + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    context = text_encoder(ids.to(device, torch.long)).last_hidden_state
    predicted = unet(noisy, timesteps, context).sample
    snr = (alpha / (1 - alpha)).flatten()
    return (predicted - target).square().mean(dim=(1, 2, 3)), snr
