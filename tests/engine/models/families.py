"""Tiny models of each family with random weights, as diffusers folder and as single file in the original key layout.

The key maps go from diffusers to the layouts of CompVis' latent-diffusion (SD 1.x) and of Stability's stablediffusion
(SD 2.x, with OpenCLIP's text encoder) and generative-models (SDXL), as their published checkpoints have them.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine.models.checkpoints import read_scheduler
from engine.models.vocabulary import CLIP_TOKENIZER

FAMILIES = ("sd1", "sd2", "sdxl")
WIDTH, POOLED, TIME = 64, 128, 8

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Built:
    """One model in both forms."""

    family: str
    folder: Path
    file: Path
    tensors: Tensors
    """Of the single file."""


def build(family: str, root: Path, *, channels: int = 4) -> Built:
    """Make a model; everything is drawn from one seed and stored in half precision. That of SD 2.x predicts v."""
    torch.manual_seed(7)
    folder, file = root / f"{family}-folder", root / f"{family}.safetensors"
    prediction = "v_prediction" if family == "sd2" else "epsilon"
    unet, vae, encoders = _unet(family, channels).half(), _vae(family).half(), _encoders(family)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    for name, encoder in encoders.items():
        encoder.save_pretrained(folder / name)
    scheduler = read_scheduler() | {"prediction_type": prediction}
    _write(folder / "scheduler/scheduler_config.json", scheduler)
    _write(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    pads = {"tokenizer": "!" if family == "sd2" else "<|endoftext|>"} | (
        {"tokenizer_2": "!"} if family == "sdxl" else {}
    )
    for name, pad in pads.items():
        shutil.copytree(CLIP_TOKENIZER, folder / name)
        for config in ("tokenizer_config.json", "special_tokens_map.json"):
            values = json.loads((folder / name / config).read_text())
            _write(folder / name / config, values | {"pad_token": pad})
    tensors = {f"model.diffusion_model.{unet_key(unet, key)}": value for key, value in unet.state_dict().items()}
    tensors |= vae_tensors(vae)
    tensors |= _text_tensors(family, encoders)
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, file)
    if family == "sd2":
        file.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    return Built(family, folder, file, tensors)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _unet(family: str, channels: int) -> UNet2DConditionModel:
    shapes: dict[str, Any] = {
        "sd1": {"block_out_channels": (32, 64), "attention_head_dim": 8, "layers_per_block": 2},
        "sd2": {"block_out_channels": (64, 64), "attention_head_dim": (1, 1), "layers_per_block": 1},
        "sdxl": {
            "block_out_channels": (64, 64, 128),
            "attention_head_dim": (1, 1, 2),
            "layers_per_block": 1,
            "transformer_layers_per_block": (1, 1, 2),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME,
            "projection_class_embeddings_input_dim": POOLED + 6 * TIME,
        },
    }[family]
    plain = ["DownBlock2D"] if family == "sdxl" else []
    down = [*plain, "CrossAttnDownBlock2D", "CrossAttnDownBlock2D" if plain else "DownBlock2D"]
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        down_block_types=tuple(down),
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
        cross_attention_dim=WIDTH + POOLED if family == "sdxl" else WIDTH,
        use_linear_projection=family != "sd1",
        **shapes,
    )


def _vae(family: str) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
    )


def _encoders(family: str) -> dict[str, nn.Module]:
    """SD 2.x's single file has a layer more, which nobody uses; see `_text_tensors`."""
    act = "gelu" if family == "sd2" else "quick_gelu"
    encoders: dict[str, nn.Module] = {"text_encoder": CLIPTextModel(_clip(WIDTH, act)).half()}
    if family == "sdxl":
        encoders["text_encoder_2"] = CLIPTextModelWithProjection(_clip(POOLED, "gelu")).half()
    return encoders


def _clip(width: int, act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        hidden_act=act,
        projection_dim=width,
        eos_token_id=2,
    )


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def unet_key(unet: UNet2DConditionModel, key: str) -> str:
    """The name of a U-Net's tensor in the original layout, where blocks are numbered through."""
    layers = unet.config.layers_per_block
    if found := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key):
        way, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        number = block * (layers + 1) + layer + (way == "down")
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            place = 2 if "CrossAttn" in unet.config.up_block_types[block] else 1
            return f"output_blocks.{block * (layers + 1) + layers}.{place}.{rest}"
        name = f"{'input' if way == 'down' else 'output'}_blocks.{number}.{0 if kind == 'resnets' else 1}.{rest}"
        return _rename_resnet(name) if kind == "resnets" else name
    for new, old in OUTSIDE.items():
        if key.startswith(f"{new}."):
            name = old + key.removeprefix(new)
            return _rename_resnet(name) if "resnets" in new else name
    raise KeyError(key)


def _rename_resnet(name: str) -> str:
    for new, old in RESNET.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def vae_tensors(vae: AutoencoderKL) -> Tensors:
    """An autoencoder's tensors in the original layout; its attention is made of 1 x 1 convolutions there."""
    levels = len(vae.config.block_out_channels)
    tensors: Tensors = {}
    for key, value in vae.state_dict().items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", name)
        name = name.replace(".resnets.", ".block.") if "decoder.up." in name else name
        name = name.replace("upsamplers.0", "upsample")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            for new, old in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
                name = name.replace(f".{new}.", f".{old}.")
            value = value[:, :, None, None] if value.ndim == 2 else value
        tensors[f"first_stage_model.{name}"] = value
    return tensors


def _text_tensors(family: str, encoders: dict[str, nn.Module]) -> Tensors:
    first = {key.removeprefix("text_model."): value for key, value in encoders["text_encoder"].state_dict().items()}
    if family == "sd2":
        tensors = open_clip_tensors(first, "cond_stage_model.model.")
        last = {name: value for name, value in tensors.items() if ".resblocks.1." in name}
        surplus = {name.replace(".resblocks.1.", ".resblocks.2."): torch.randn_like(last[name]) for name in last}
        return tensors | surplus | {"cond_stage_model.model.text_projection": torch.randn(WIDTH, WIDTH).half()}
    prefix = "cond_stage_model.transformer." if family == "sd1" else "conditioner.embedders.0.transformer."
    tensors = {f"{prefix}text_model.{key}": value for key, value in first.items()}
    tensors[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if family == "sdxl":
        second = dict(encoders["text_encoder_2"].state_dict())
        inside = {key.removeprefix("text_model."): value for key, value in second.items()}
        tensors |= open_clip_tensors(inside, "conditioner.embedders.1.model.")
    return tensors


def open_clip_tensors(encoder: Tensors, prefix: str) -> Tensors:
    """A text encoder in OpenCLIP's layout: one tensor for query, key and value, the projection the other way round."""
    tensors: Tensors = {"logit_scale": torch.tensor(4.6)}
    for key, value in encoder.items():
        if found := re.match(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key):
            parts = [encoder[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            tensors[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(parts)
        elif key == "text_projection.weight":
            tensors["text_projection"] = value.T
        elif ".k_proj." not in key and ".v_proj." not in key:
            for new, old in (
                ("embeddings.token_embedding", "token_embedding"),
                ("embeddings.position_embedding.weight", "positional_embedding"),
                ("final_layer_norm", "ln_final"),
                ("encoder.layers", "transformer.resblocks"),
                ("self_attn", "attn"),
                ("layer_norm", "ln_"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                key = key.replace(new, old)
            tensors[key] = value
    return {prefix + key: value for key, value in tensors.items()}
