"""BLIP, which says in a sentence what a picture shows, through `transformers` from a folder of weights.

Opened by caption.py, in the process that prepares pictures. `check_blip` reads names only; `open_blip` imports torch.
The invariant: nothing is fetched from a hub, and a model that lacks a weight is refused, not filled up with noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from engine.errors import VocableError
from engine.preprocess.request import Blip

_CONFIG = "config.json"
_NEEDED = (
    (_CONFIG,),
    ("preprocessor_config.json",),
    ("tokenizer.json", "vocab.txt"),
    ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
)
"""Files of the folder; of each line one is enough."""


def check_blip(folder: Path) -> None:
    """Look whether the folder holds a BLIP model.

    Raises:
        VocableError: `caption.missing` with what lacks and where to put it; `caption.unreadable` for another kind.
    """
    lacking = [" or ".join(names) for names in _NEEDED if not any((folder / name).is_file() for name in names)]
    if lacking:
        title = f"There is no BLIP model in '{folder}': it lacks {', '.join(lacking)}."
        hint = (
            "Put a BLIP captioning model in the layout of transformers there, for instance the files of "
            "Salesforce/blip-image-captioning-large, or set preprocess.blip to its folder."
        )
        raise VocableError("caption.missing", title, hint)
    try:
        kind = json.loads((folder / _CONFIG).read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(folder, f"{_CONFIG} cannot be read ({error})") from None
    if kind != "blip":
        raise _unreadable(folder, f"{_CONFIG} tells of a model of the kind '{kind}', not 'blip'")


def open_blip(folder: Path, *, device: str, search: Blip) -> Callable[[Image.Image], str]:
    """Load the model; what is returned says what an RGB picture shows, the same for the same picture.

    Beam search without sampling on the picture squashed to the model's square, as the reference tool does
    (webui.md section 8); in float16 on a GPU.

    Raises:
        VocableError: `caption.missing`, `caption.unreadable`.
    """
    check_blip(folder)
    import torch

    on_gpu = torch.device(device).type == "cuda"
    model, tokenizer, processor = _load(folder, torch.float16 if on_gpu else torch.float32)
    model.to(device)

    def say(picture: Image.Image) -> str:
        inputs = processor(images=picture.convert("RGB"), return_tensors="pt")
        pixels = inputs["pixel_values"].to(device=device, dtype=model.dtype)
        tokens = model.generate(
            pixel_values=pixels,
            do_sample=False,
            num_beams=search.beams,
            min_length=search.min_tokens,
            max_length=search.max_tokens,
            no_repeat_ngram_size=search.no_repeat,
        )
        return " ".join(tokenizer.decode(tokens[0, 1:], skip_special_tokens=True).split())

    return say


def _load(folder: Path, dtype: Any) -> tuple[Any, Any, Any]:
    """Model in evaluation mode on the CPU, tokenizer, image processor."""
    from transformers import BertTokenizerFast, BlipForConditionalGeneration, BlipImageProcessorPil

    try:
        model, report = BlipForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, dtype=dtype, output_loading_info=True
        )
        tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
        processor = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # Whatever lies in the files, these libraries answer it with exceptions of every kind.
        raise _unreadable(
            folder, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise _unreadable(folder, f"{len(missing)} of its weights lack, the first is {missing[0]}")
    return model.eval(), tokenizer, processor


def _unreadable(folder: Path, reason: str) -> VocableError:
    return VocableError(
        "caption.unreadable", f"The BLIP model in '{folder}' cannot be used: {reason}.", "Copy it anew."
    )
