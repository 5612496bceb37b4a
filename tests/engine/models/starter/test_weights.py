"""The committed starter model: it loads as any diffusers folder does, fits its size, and obeys prompts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from engine.models.starter import sample
from engine.models.starter.attributes import Portrait, random_portrait
from engine.models.starter.captions import description, varying_caption
from engine.models.starter.measure import check_attributes

WEIGHTS = Path(sample.__file__).parent / "weights"
MEBIBYTES = 1024 * 1024


@pytest.fixture(scope="module")
def pipeline() -> Iterator[StableDiffusionPipeline]:
    loaded = StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    return loaded


def _portraits(count: int) -> list[Portrait]:
    rng = random.Random("attribute check")
    portraits: list[Portrait] = []
    while len(portraits) < count:
        portrait = replace(random_portrait(rng), style="portrait")
        if portrait.hair_style != "bald":
            portraits.append(portrait)
    return portraits


def test_all_of_it_is_at_most_24_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 24 * MEBIBYTES


def test_a_plain_load_gives_parts_that_work_together(pipeline: StableDiffusionPipeline) -> None:
    assert pipeline.text_encoder.dtype == pipeline.unet.dtype == pipeline.vae.dtype == torch.float32
    picture = pipeline(sample.PROMPTS[0].text.replace("[name]", "girl"), num_inference_steps=2).images[0]
    assert picture.size == (64, 64)


def test_the_log_of_the_build_is_beside_the_weights() -> None:
    entries = [json.loads(line) for line in (WEIGHTS / "build.jsonl").read_text().splitlines()]
    assert {"start", "vae", "unet", "decoder", "export"} <= {entry["stage"] for entry in entries}
    assert max(entry.get("psnr_db", 0) for entry in entries) > 26


@pytest.mark.parametrize("word", [sample.INIT_WORD, "portrait", "background", "smiling", "twintails"])
def test_words_of_the_captions_are_single_tokens(pipeline: StableDiffusionPipeline, word: str) -> None:
    assert len(pipeline.tokenizer(word, add_special_tokens=False).input_ids) == 1


def test_any_text_becomes_known_tokens(pipeline: StableDiffusionPipeline) -> None:
    ids = pipeline.tokenizer("Zyx-7 ünïcode 日本 *", add_special_tokens=False).input_ids
    assert ids
    assert pipeline.tokenizer.unk_token_id not in ids


def test_64_pictures_show_the_background_and_hair_that_their_prompts_name(pipeline: StableDiffusionPipeline) -> None:
    asked = _portraits(64)
    prompts = [f"portrait of {description(portrait)}, {varying_caption(portrait)}" for portrait in asked]
    pictures = []
    for start in range(0, len(prompts), 16):
        noise = [torch.Generator().manual_seed(start + index) for index in range(16)]
        pictures += pipeline(
            prompts[start : start + 16], num_inference_steps=10, guidance_scale=4.0, generator=noise
        ).images
    shares = check_attributes(pictures, asked)
    assert shares.background >= 0.85
    assert shares.hair >= 0.70


def test_without_the_prompt_the_attribute_check_fails(pipeline: StableDiffusionPipeline) -> None:
    asked = _portraits(16)
    noise = [torch.Generator().manual_seed(index) for index in range(16)]
    pictures = pipeline(["portrait"] * 16, num_inference_steps=8, guidance_scale=1.0, generator=noise).images
    shares = check_attributes(pictures, asked)
    assert shares.background < 0.5
    assert shares.hair < 0.5
