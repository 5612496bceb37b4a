"""The two recipes by which the starter model is built, as plain data.

Read by every `build_*` module. No torch. A recipe is written into the build's log, so that weights tell how they were
made.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """How one network trains: AdamW with warm-up and cosine, gradient norm at most 1, a moving average of the weights.

    Training ends at `steps` or after `minutes` of training time, whichever comes first; the cosine follows the nearer.
    """

    steps: int
    minutes: float
    batch: int
    rate: float
    warmup: int
    ema: float


@dataclass(frozen=True)
class Recipe:
    pictures: int
    captions_each: int
    vocabulary: int
    text_width: int
    text_layers: int
    vae_channels: tuple[int, ...]
    vae: Plan
    unet_channels: tuple[int, ...]
    unet_attention: tuple[bool, ...]
    unet: Plan
    decoder: Plan
    sheet_columns: int = 8
    checked_pictures: int = 64
    """How many pictures the attribute check at the end generates."""
    seed: int = 7


CPU = Recipe(
    pictures=80_000,
    captions_each=4,
    vocabulary=1024,
    text_width=128,
    text_layers=3,
    vae_channels=(16, 32, 64),
    vae=Plan(steps=6_000, minutes=19, batch=12, rate=2e-3, warmup=150, ema=0.998),
    unet_channels=(48, 96, 160),
    unet_attention=(False, True, True),
    unet=Plan(steps=9_000, minutes=68, batch=48, rate=1e-3, warmup=300, ema=0.999),
    decoder=Plan(steps=6_000, minutes=12, batch=12, rate=1e-3, warmup=150, ema=0.998),
)

GPU = Recipe(
    pictures=200_000,
    captions_each=4,
    vocabulary=1024,
    text_width=128,
    text_layers=4,
    vae_channels=(16, 32, 64),
    vae=Plan(steps=60_000, minutes=8, batch=64, rate=2e-3, warmup=500, ema=0.999),
    unet_channels=(64, 112, 176),
    unet_attention=(False, True, True),
    unet=Plan(steps=60_000, minutes=18, batch=256, rate=1e-3, warmup=1_000, ema=0.9995),
    decoder=Plan(steps=20_000, minutes=3, batch=64, rate=1e-3, warmup=500, ema=0.999),
)

RECIPES = {"cpu": CPU, "gpu": GPU}
