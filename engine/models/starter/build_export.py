"""Writes a starter model as an ordinary diffusers folder, and draws its sample sheet. Called by `build.py`."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from engine.models.starter.attributes import Portrait, random_portrait
from engine.models.starter.build_tokenizer import save_tokenizer
from engine.models.starter.build_unet import make_scheduler
from engine.models.starter.captions import description, varying_caption
from engine.models.starter.measure import check_attributes

_SHEET_PROMPTS = (
    "portrait of a girl with blue twintails, red eyes, bunny ears, pink background",
    "portrait of a man with short black hair, blue eyes, yellow glasses, tan skin, smiling, green background",
    "portrait of a woman with long red hair, green eyes, dark skin, white shirt, sad, blue background",
    "portrait of a boy with curly blonde hair, brown eyes, striped purple shirt, surprised, orange background",
    "ink drawing of a girl with green bun, yellow eyes, cat ears, yellow background",
    "pixel art of a man with orange mohawk, purple eyes, black shirt, white background",
    "pencil sketch of a woman with long pink hair, blue crown, grey background",
    "portrait of a girl with white twintails, red eyes, bunny ears, orange bow, striped purple shirt, green background",
    "a boy, smiling, red background",
    "girl, sad, purple background",
)


def assemble(
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderKL
) -> StableDiffusionPipeline:
    """The parts as one pipeline, sampled by DDIM."""
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler.from_config(make_scheduler().config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(pipeline: StableDiffusionPipeline, folder: Path) -> int:
    """Write the pipeline's parts as float16 safetensors and the training scheduler; return the size in bytes."""
    half = StableDiffusionPipeline(
        vae=copy.deepcopy(pipeline.vae).half(),
        text_encoder=copy.deepcopy(pipeline.text_encoder).half(),
        tokenizer=pipeline.tokenizer,
        unet=copy.deepcopy(pipeline.unet).half(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    half.save_pretrained(folder)
    save_tokenizer(pipeline.tokenizer, folder / "tokenizer")
    _load_text_encoder_in_float32(folder / "text_encoder" / "config.json")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def draw_samples(
    pipeline: StableDiffusionPipeline, prompts: list[str], *, seed: int, steps: int = 20, guidance: float = 4.0
) -> list[Image.Image]:
    """One picture a prompt, each from the seed's own noise for its place in the list."""
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), 16):
        batch = prompts[start : start + 16]
        noise = [torch.Generator().manual_seed(seed * 10_007 + start + offset) for offset in range(len(batch))]
        pictures += pipeline(batch, num_inference_steps=steps, guidance_scale=guidance, generator=noise).images
    return pictures


def measure_attributes(pipeline: StableDiffusionPipeline, count: int, *, seed: int) -> dict[str, float]:
    """Shares of `count` pictures whose background and hair colour are those of full, random prompts."""
    asked = sample_portraits(count, seed)
    shares = check_attributes(draw_samples(pipeline, [full_prompt(portrait) for portrait in asked], seed=seed), asked)
    return {"background_right": round(shares.background, 3), "hair_right": round(shares.hair, 3)}


def sample_portraits(count: int, seed: int) -> list[Portrait]:
    """Random portraits with hair, in the plain style, for the attribute check."""
    rng = random.Random(f"samples {seed}")
    portraits: list[Portrait] = []
    while len(portraits) < count:
        portrait = replace(random_portrait(rng), style="portrait")
        if portrait.hair_style != "bald":
            portraits.append(portrait)
    return portraits


def full_prompt(portrait: Portrait) -> str:
    return f"portrait of {description(portrait)}, {varying_caption(portrait)}"


def sample_sheet(pipeline: StableDiffusionPipeline, *, seed: int, columns: int) -> Image.Image:
    """A row of `columns` pictures for each of ten prompts."""
    prompts = [prompt for prompt in _SHEET_PROMPTS for _ in range(columns)]
    pictures = draw_samples(pipeline, prompts, seed=seed)
    side = pictures[0].width
    sheet = Image.new("RGB", (columns * side, len(_SHEET_PROMPTS) * side))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * side, index // columns * side))
    return sheet


def _load_text_encoder_in_float32(config: Path) -> None:
    """transformers takes the type to load from this file; float32 lets a plain load run on any CPU."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values["dtype"] = "float32"
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
