"""How much memory training takes, from configurations and headers alone: known before anything is loaded.

Called before a run starts, and by whoever wants to say beforehand what fits. No torch. Parameters are counted exactly;
what the backward pass keeps is estimated from the shapes of the U-Net's layers, and is some tens of percent off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from engine.models.catalog import ModelEntry, parts_of, read_checkpoint, read_config, weights_file

_RESNET_KEPT = 2
"""Tensors of its input's and of its output's size that a residual layer keeps for the backward pass: inputs of the
norms and activations. Frozen convolutions keep nothing."""
_BLOCK_KEPT = 22
"""Tensors of its own width that a transformer block keeps: 4 inputs of norms, 6 around attention, 12 in its GEGLU."""
_OVERHEAD = 1.2
"""Copies between layouts, against counts on the U-Net of SD 1.5."""
_CHECKPOINTED = 0.15
"""What is left with gradient checkpointing: inputs of blocks, and one block at a time."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device."""

    networks: int
    """Text encoders, U-Net, and the VAE as it is loaded."""
    vae: int
    """Of these the VAE, which training itself does not need."""
    activations: int
    """What one step keeps for its backward pass."""

    def needed(self, *, checkpointing: bool, offload: bool) -> int:
        """Bytes of a run with these choices."""
        kept = int(self.activations * _CHECKPOINTED) if checkpointing else self.activations
        return self.networks - (self.vae if offload else 0) + kept


def estimate_memory(entry: ModelEntry, *, item_bytes: int, batch: int, width: int, height: int) -> MemoryEstimate:
    """Estimate what training takes.

    Args:
        item_bytes: of a number in the model's precision.
        batch: pictures in one update.
        width: in pixels, as is height.

    Raises:
        VocableError: `model.unreadable`.
    """
    configs, counts = _read(entry)
    vae_bytes = counts["vae"] * (4 if configs["vae"].get("force_upcast", True) else item_bytes)
    others = sum(count for part, count in counts.items() if part != "vae") * item_bytes
    factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    kept = sum(_layers(configs["unet"], width // factor, height // factor)) * batch * _OVERHEAD
    return MemoryEstimate(others + vae_bytes, vae_bytes, int(kept * item_bytes))


def _read(entry: ModelEntry) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Configurations, and numbers of parameters, by part."""
    from engine.models.checkpoints import CLIP, OPEN_CLIP, UNET, VAE
    from engine.models.weights import open_weights

    configs: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    if entry.path.is_dir():
        for part in parts_of(entry.path):
            configs[part] = read_config(entry.path, f"{part}/config.json")[0]
            with open_weights(weights_file(entry.path, part)) as weights:
                counts[part] = sum(prod(tensor.shape) for tensor in weights.tensors.values())
        return configs, counts
    configs |= read_checkpoint(entry.path).configs
    texts = [table[entry.family] for table in (CLIP, OPEN_CLIP) if entry.family in table]
    prefixes = {"unet": (UNET,), "vae": (VAE,), "text_encoder": tuple(texts)}
    with open_weights(entry.path) as weights:
        for part, starts in prefixes.items():
            found = (tensor for name, tensor in weights.tensors.items() if name.startswith(starts))
            counts[part] = sum(prod(tensor.shape) for tensor in found)
    return configs, counts


def _layers(unet: Mapping[str, Any], width: int, height: int) -> Iterator[int]:
    """Numbers that each layer keeps for one picture."""
    channels, layers = unet["block_out_channels"], unet.get("layers_per_block", 2)
    depths = unet.get("transformer_layers_per_block") or 1
    depths = [depths] * len(channels) if isinstance(depths, int) else depths
    last = len(channels) - 1

    def layer(level: int, given: int, made: int, depth: int) -> int:
        cells = max(1, width >> level) * max(1, height >> level)
        return cells * (_RESNET_KEPT * (given + made) + _BLOCK_KEPT * made * depth)

    skips, given = [channels[0]], channels[0]
    for level, made in enumerate(channels):
        depth = depths[level] if "Attn" in unet["down_block_types"][level] else 0
        for _ in range(layers):
            yield layer(level, given, made, depth)
            skips.append(made)
            given = made
        skips += [made] if level < last else []
    yield layer(last, given, given, depths[last]) + layer(last, given, given, 0)
    for level, made in reversed(list(enumerate(channels))):
        depth = depths[level] if "Attn" in unet["up_block_types"][last - level] else 0
        for _ in range(layers + 1):
            yield layer(level, given + skips.pop(), made, depth)
            given = made
