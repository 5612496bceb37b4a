"""BLIP, which says in a sentence what a picture shows, through `transformers` from a folder of weights.

Opened by caption.py, in the process that prepares pictures; torch is imported no sooner. The
invariant: nothing is fetched from a hub, and a model that lacks a weight is refused, not filled up with noise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from engine.preprocess.caption_files import blip_unreadable, check_blip
from engine.preprocess.request import Blip


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
        raise blip_unreadable(
            folder, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise blip_unreadable(folder, f"{len(missing)} of its weights lack, the first is {missing[0]}")
    return model.eval(), tokenizer, processor
