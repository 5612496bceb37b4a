"""What a single-file checkpoint is, told from the names and shapes of its tensors: family, widths, configurations.

Called by the catalog and by `load`; no torch, no number is read. A family is known by its key layout (the original
LDM layout of SD 1.x and 2.x, the SGM layout of SDXL), every size by a shape; what neither tells (activation, width of
a head, the VAE's scale, the noise schedule) stands in `configs/FAMILY.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.embedding.kinds import name_contents
from engine.embedding.stored import StoredTensor
from engine.errors import VocableError
from engine.models.weights import Weights

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = {"sd1": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
"""Where a text encoder in the layout of transformers lies; `text_model.` may follow."""
OPEN_CLIP = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}
"""Where one in OpenCLIP's layout lies."""

_CONFIGS = Path(__file__).parent / "configs"
_TIME_IDS = 6
_OTHERS = (
    ("conditioner.embedders.0.model.", "the refiner of SDXL, which makes no pictures by itself"),
    ("model.diffusion_model.joint_blocks.", "of the SD 3 family"),
    ("model.diffusion_model.double_blocks.", "of the FLUX family"),
    ("double_blocks.", "of the FLUX family"),
)
_EDM = ("edm_mean", "edm_vpred.sigma_max")
"""Marks of Playground v2.5 and of CosXL, which have the layout of SDXL but were trained on noise of another kind."""
_EXTRA_CHANNELS = {5: "depth-to-image", 7: "upscaling", 8: "InstructPix2Pix"}
_PARAMETERIZATION = re.compile(r"^\s*parameterization\s*:\s*[\"']?(\w+)", re.MULTILINE)
_PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "eps": "epsilon", "epsilon": "epsilon"}
_MAX_SIDECAR = 1 << 20
_MAX_COUNT = 64
"""Most layers, blocks or levels of one kind: the second text encoder of SDXL has 32, every U-Net fewer."""


@dataclass(frozen=True)
class Checkpoint:
    family: str
    """`sd1`, `sd2` or `sdxl`."""
    prediction_type: str
    """`epsilon` or `v_prediction`; empty when the file cannot tell, and the U-Net has to be asked."""
    size: int
    """Native edge of a picture in pixels."""
    configs: Mapping[str, dict[str, Any]]
    """By part, as in a diffusers folder: `unet`, `vae`, `text_encoder`, `text_encoder_2`, `scheduler`."""


def describe_checkpoint(path: Path, weights: Weights) -> Checkpoint:
    """Tell what a checkpoint is.

    Args:
        path: of the file; a `.yaml` beside it may say what the model predicts, as webui has it.

    Raises:
        VocableError: `model.unreadable` when it is no checkpoint of a known family, or lacks tensors of one.
    """
    tensors = _Shapes(path, weights.tensors)
    family = _find_family(tensors)
    facts = _read_facts(family)
    prediction, zero_snr = _find_prediction(path, weights, facts)
    encoders = _text_encoders(tensors, family, facts)
    scheduler = read_scheduler() | {"prediction_type": prediction or "epsilon"}
    if zero_snr:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    size = facts.get("size_of_v", facts["size"]) if prediction == "v_prediction" else facts["size"]
    vae = _vae(tensors) | facts["vae"]
    pooled = encoders.get("text_encoder_2", {}).get("projection_dim", 0)
    unet = _unet(tensors, facts["unet"], pooled) | {"sample_size": size // 2 ** (len(vae["block_out_channels"]) - 1)}
    wanted = sum(config["hidden_size"] for config in encoders.values())
    if unet["cross_attention_dim"] != wanted:
        raise tensors.broken(f"its text is {wanted} wide but its U-Net expects {unet['cross_attention_dim']}")
    if unet["out_channels"] != vae["latent_channels"]:
        raise tensors.broken(f"its VAE has {vae['latent_channels']} channels but its U-Net {unet['out_channels']}")
    configs = {"unet": unet, "vae": vae | {"sample_size": size}, "scheduler": scheduler, **encoders}
    return Checkpoint(family, prediction, size, configs)


def read_scheduler() -> dict[str, Any]:
    """The noise schedule that all families share, as in a `scheduler_config.json`."""
    values: dict[str, Any] = json.loads((_CONFIGS / "scheduler.json").read_bytes())
    return values


@lru_cache(maxsize=8)
def _read_facts(family: str) -> Any:
    return json.loads((_CONFIGS / f"{family}.json").read_bytes())


class _Shapes:
    """Shapes by name; a name that is missing names the file."""

    def __init__(self, path: Path, tensors: Mapping[str, StoredTensor]) -> None:
        self.path = path
        self.names = tensors.keys()
        self._tensors = tensors

    def __call__(self, name: str, rank: int) -> tuple[int, ...]:
        if name not in self._tensors:
            raise self.broken(f"the tensor {name} is missing")
        shape = self._tensors[name].shape
        if len(shape) != rank or not all(shape):
            raise self.broken(f"the tensor {name} is of shape {' x '.join(map(str, shape)) or 'none'}")
        return shape

    def rank(self, name: str) -> int:
        return len(self._tensors[name].shape) if name in self._tensors else 0

    def count(self, prefix: str) -> int:
        """How many numbers, from 0 on, follow the prefix in the names."""
        found = {name[len(prefix) :].partition(".")[0] for name in self.names if name.startswith(prefix)}
        number = 0
        while str(number) in found:
            number += 1
        if number > _MAX_COUNT:
            raise self.broken(f"it has {number} parts named {prefix}N, more than any known model")
        return number

    def broken(self, problem: str, hint: str = "Copy or download the model again, whole.") -> VocableError:
        return VocableError("model.unreadable", f"The model {self.path} cannot be used: {problem}.", hint)


def _find_family(tensors: _Shapes) -> str:
    names = tensors.names
    hint = "Use a checkpoint of SD 1.x, SD 2.x or SDXL."
    if any(mark in names for mark in _EDM):
        raise tensors.broken("it was trained on the noise of EDM, as Playground v2.5 and CosXL were", hint)
    if any(name.startswith(OPEN_CLIP["sdxl"]) for name in names):
        return "sdxl"
    for prefix, what in _OTHERS:
        if any(name.startswith(prefix) for name in names):
            raise tensors.broken(f"it is {what}", hint)
    if not any(name.startswith(UNET) for name in names):
        what = name_contents(names)
        raise tensors.broken(f"it is {what}, not a whole model" if what else "it holds no model that is known", hint)
    if any(name.startswith(OPEN_CLIP["sd2"]) for name in names):
        return "sd2"
    if any(name.startswith(CLIP["sd1"]) for name in names):
        return "sd1"
    raise tensors.broken("it has a U-Net but no text encoder", hint)


def _find_prediction(path: Path, weights: Weights, facts: Mapping[str, Any]) -> tuple[str, bool]:
    """What the U-Net predicts, and whether its noise schedule ends in pure noise.

    In this order: the `.yaml` beside the file, marks among the tensors (`v_pred`, `ztsnr`), what a trainer wrote into
    the header, how many steps the published models of SD 2.x were trained, the family.
    """
    zero_snr = "ztsnr" in weights.tensors
    told = _read_sidecar(path) or ("v" if "v_pred" in weights.tensors else "")
    told = told or weights.metadata.get("modelspec.prediction_type", "")
    if told in _PREDICTIONS:
        return _PREDICTIONS[told], zero_snr
    published = {"875000": "epsilon", "220000": "epsilon", "140000": "v_prediction", "110000": "v_prediction"}
    default = facts["scheduler"].get("prediction_type", "")
    return default or published.get(weights.metadata.get("global_step", ""), ""), zero_snr


def _read_sidecar(path: Path) -> str:
    sidecar = path.with_suffix(".yaml")
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > _MAX_SIDECAR:
            return ""
        found = _PARAMETERIZATION.search(sidecar.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def _text_encoders(tensors: _Shapes, family: str, facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    encoders = []
    if family in CLIP:
        encoders.append(_clip(tensors, clip_prefix(tensors.names, family)))
    if family in OPEN_CLIP:
        encoders.append(_open_clip(tensors, OPEN_CLIP[family]))
    named = {}
    for name, config in zip(("text_encoder", "text_encoder_2"), encoders, strict=False):
        known = dict(facts[name])
        left_out, head = known.pop("layers_left_out", 0), known.pop("head_width")
        config["num_hidden_layers"] -= left_out
        config["num_attention_heads"] = max(1, config["hidden_size"] // head)
        named[name] = config | known
    return named


def clip_prefix(names: Any, family: str) -> str:
    """Where the tensors of a CLIP text encoder lie; some programs leave `text_model.` out."""
    prefix = CLIP[family]
    return prefix + "text_model." if any(name.startswith(prefix + "text_model.") for name in names) else prefix


def _clip(tensors: _Shapes, prefix: str) -> dict[str, Any]:
    vocabulary, width = tensors(f"{prefix}embeddings.token_embedding.weight", 2)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": tensors(f"{prefix}encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": tensors.count(f"{prefix}encoder.layers."),
        "max_position_embeddings": tensors(f"{prefix}embeddings.position_embedding.weight", 2)[0],
    }


def _open_clip(tensors: _Shapes, prefix: str) -> dict[str, Any]:
    vocabulary, width = tensors(f"{prefix}token_embedding.weight", 2)
    projection = f"{prefix}text_projection"
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": tensors(projection, 2)[1] if projection in tensors.names else width,
        "intermediate_size": tensors(f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": tensors.count(f"{prefix}transformer.resblocks."),
        "max_position_embeddings": tensors(f"{prefix}positional_embedding", 2)[0],
    }


def _vae(tensors: _Shapes) -> dict[str, Any]:
    levels = tensors.count(f"{VAE}encoder.down.")
    widths = [tensors(f"{VAE}encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)]
    if not widths:
        raise tensors.broken("it has no VAE")
    return {
        "block_out_channels": widths,
        "layers_per_block": tensors.count(f"{VAE}encoder.down.0.block."),
        "latent_channels": tensors(f"{VAE}decoder.conv_in.weight", 4)[1],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


@dataclass(frozen=True)
class _Level:
    """One resolution of the U-Net's way down."""

    width: int
    layers: int
    depth: int
    """Transformer blocks after each layer; 0 for none."""


def _unet(tensors: _Shapes, facts: Mapping[str, Any], pooled: int) -> dict[str, Any]:
    levels = _unet_levels(tensors)
    depth = tensors.count(f"{UNET}middle_block.1.transformer_blocks.")
    attended = [level for level in levels if level.depth]
    if not attended or not depth or (levels[-1].depth or depth) != depth or len({level.layers for level in levels}) > 1:
        raise tensors.broken("its U-Net is of another shape than that of any known model")
    middle = f"{UNET}middle_block.1"
    inputs = tensors(f"{UNET}input_blocks.0.0.weight", 4)[1]
    outputs = tensors(f"{UNET}out.2.weight", 4)[0]
    if inputs not in (outputs, 2 * outputs + 1):
        what = _EXTRA_CHANNELS.get(inputs, f"{inputs} input channels")
        raise tensors.broken(f"its U-Net is made for another task ({what})", "Choose a text-to-image model.")
    linear = tensors.rank(f"{middle}.proj_in.weight") == 2
    widths = [level.width for level in levels]
    head = facts.get("head_width")
    config = {
        "in_channels": inputs,
        "out_channels": outputs,
        "block_out_channels": widths,
        "layers_per_block": levels[0].layers,
        "down_block_types": ["CrossAttnDownBlock2D" if level.depth else "DownBlock2D" for level in levels],
        "up_block_types": ["CrossAttnUpBlock2D" if level.depth else "UpBlock2D" for level in reversed(levels)],
        "transformer_layers_per_block": [*(level.depth or 1 for level in levels[:-1]), depth],
        "cross_attention_dim": tensors(f"{middle}.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "use_linear_projection": linear,
        "attention_head_dim": [max(1, width // head) for width in widths] if head else facts["attention_head_dim"],
    }
    return config | _unet_extras(tensors, pooled)


def _unet_levels(tensors: _Shapes) -> list[_Level]:
    levels: list[_Level] = []
    width = layers = depth = 0
    for block in range(1, tensors.count(f"{UNET}input_blocks.")):
        prefix = f"{UNET}input_blocks.{block}"
        if f"{prefix}.0.op.weight" in tensors.names:
            levels.append(_Level(width, layers, depth))
            layers = 0
            continue
        width = tensors(f"{prefix}.0.in_layers.2.weight", 4)[0]
        depth = tensors.count(f"{prefix}.1.transformer_blocks.")
        layers += 1
    return [*levels, _Level(width, layers, depth)]


def _unet_extras(tensors: _Shapes, pooled: int) -> dict[str, Any]:
    """Conditioning on a pooled text and on sizes, which SDXL has."""
    if not pooled and f"{UNET}label_emb.0.0.weight" in tensors.names:
        raise tensors.broken("its U-Net is made for another task (unCLIP)", "Choose a text-to-image model.")
    if not pooled:
        return {}
    added = tensors(f"{UNET}label_emb.0.0.weight", 2)[1]
    if added <= pooled or (added - pooled) % _TIME_IDS:
        raise tensors.broken(f"its U-Net takes {added} numbers beside the text, which do not fit {pooled} of the text")
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (added - pooled) // _TIME_IDS,
        "projection_class_embeddings_input_dim": added,
    }
