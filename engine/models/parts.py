"""The networks of a model, made from a diffusers folder or from a single file, with the configurations beside them.

Called by `load`. Single files are converted by diffusers' own rules (`diffusers.loaders.single_file_utils`), which move
names around and cut tensors; they get stand-ins for the tensors, so nothing is read before its place is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine.errors import VocableError
from engine.models.catalog import ModelEntry, parts_of, read_checkpoint, read_config, weights_file
from engine.models.checkpoints import OPEN_CLIP, read_scheduler
from engine.models.pieces import Piece, fill, make_pieces
from engine.models.weights import open_weights, reading

_Pieces = dict[str, Any]


@dataclass(frozen=True)
class Parts:
    """What a model is made of, on its device."""

    networks: Mapping[str, Any]
    """`text_encoder`, `text_encoder_2` if there is one, `unet`, `vae`."""
    scheduler: dict[str, Any]


def load_parts(entry: ModelEntry, *, device: torch.device, dtype: torch.dtype) -> Parts:
    """Load every network of a model, in float32 the VAE that overflows in half precision.

    Raises:
        VocableError: `model.unreadable` with the file that is missing, damaged, or does not fit its configuration.
    """
    return (_load_folder if entry.path.is_dir() else _load_file)(entry, device, dtype)


def _load_folder(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Parts:
    networks: dict[str, Any] = {}
    for part in parts_of(entry.path):
        path = weights_file(entry.path, part)
        config, _ = read_config(entry.path, f"{part}/config.json")
        with _explained(path, f"{part}/{path.name}"), open_weights(path) as weights, reading(path):
            networks[part] = _make(part, config, make_pieces(weights.tensors), device, dtype)
    return Parts(networks, read_config(entry.path, "scheduler/scheduler_config.json")[0])


def _load_file(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Parts:
    checkpoint = read_checkpoint(entry.path)
    networks: dict[str, Any] = {}
    with _explained(entry.path, entry.path.name), open_weights(entry.path) as weights, reading(entry.path):
        pieces = make_pieces(weights.tensors)
        for part, config in checkpoint.configs.items():
            if part != "scheduler":
                converted = _convert(part, config, pieces, checkpoint.family)
                networks[part] = _make(part, config, converted, device, dtype)
    return Parts(networks, read_scheduler() | checkpoint.configs["scheduler"])


def _convert(part: str, config: dict[str, Any], pieces: _Pieces, family: str) -> _Pieces:
    """The pieces of one network under the names that diffusers and transformers know them by."""
    converted: _Pieces
    if part == "unet":
        converted = convert_ldm_unet_checkpoint(pieces, config)
    elif part == "vae":
        converted = convert_ldm_vae_checkpoint(pieces, config)
    elif part == "text_encoder" and family != "sd2":
        converted = convert_ldm_clip_checkpoint(pieces)
    else:
        prefix = OPEN_CLIP[family]
        inside = {name: piece for name, piece in pieces.items() if name.startswith(prefix)}
        if part == "text_encoder":
            # The last layer of SD 2.x's encoder is not used, and neither is what projects its output.
            surplus = (f"{prefix}transformer.resblocks.{config['num_hidden_layers']}.", f"{prefix}text_projection")
            inside = {name: piece for name, piece in inside.items() if not name.startswith(surplus)}
        width = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
        converted = convert_open_clip_checkpoint(width, inside, prefix=prefix)
    return converted


def _make(part: str, config: dict[str, Any], pieces: dict[str, Piece], device: torch.device, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        if part == "unet":
            network = UNet2DConditionModel.from_config(config)
        elif part == "vae":
            network = AutoencoderKL.from_config(config)
        else:
            kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
            network = kind(CLIPTextConfig.from_dict(config))
    if part == "vae" and config.get("force_upcast", True):
        dtype = torch.float32
    fill(network, pieces, device=device, dtype=dtype)
    return network.to(memory_format=torch.channels_last) if part in ("unet", "vae") else network


@contextmanager
def _explained(path: Path, name: str) -> Iterator[None]:
    """Make `model.unreadable` of whatever the libraries raise when configuration and tensors do not fit."""
    try:
        yield
    except (VocableError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        title = f"The model {path} cannot be loaded: {name} does not read ({reason})."
        raise VocableError("model.unreadable", title, "Copy the model again, whole.") from error
