"""The files of captioning models: whether they are there, and what tells one model from another.

Called before anything begins, by the service as well: reads names and a few bytes, and imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import VocableError
from engine.preprocess.request import Captions

TAGGER_MODEL, TAGGER_TAGS = "model.onnx", "selected_tags.csv"

_CONFIG = "config.json"
_NEEDED = (
    (_CONFIG,),
    ("preprocessor_config.json",),
    ("tokenizer.json", "vocab.txt"),
    ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
)
"""Files of the folder; of each line one is enough."""


_RULE = 1
"""Counts up when the same weights would word a caption differently."""

_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class CaptionModels:
    """Folders of weights, from the settings."""

    blip: Path
    tagger: Path


def identify_captioner(captions: Captions, models: CaptionModels) -> str:
    """What tells this captioner from every other; empty when none is asked for.

    Raises:
        VocableError: `caption.missing`, `caption.extra` or `caption.unreadable`, when it could not be opened.
    """
    if captions.make == "blip":
        check_blip(models.blip)
        return f"blip {_RULE} {_fingerprint(models.blip, blip_unreadable)}"
    if captions.make == "tags":
        check_tagger(models.tagger)
        return f"tags {_RULE} {_fingerprint(models.tagger, tagger_unreadable)}"
    return f"starter {_RULE}" if captions.make == "starter" else ""


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
        raise blip_unreadable(folder, f"{_CONFIG} cannot be read ({error})") from None
    if kind != "blip":
        raise blip_unreadable(folder, f"{_CONFIG} tells of a model of the kind '{kind}', not 'blip'")


def check_tagger(folder: Path) -> None:
    """Look whether a tagger can be had.

    Raises:
        VocableError: `caption.extra` without onnxruntime; `caption.missing` with what lacks and where to put it.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        title = "Tagging needs onnxruntime, which is not installed."
        raise VocableError("caption.extra", title, "Install it where the service runs: pip install 'vocable[tagger]'")
    lacking = [name for name in (TAGGER_MODEL, TAGGER_TAGS) if not (folder / name).is_file()]
    if lacking:
        title = f"There is no tagger in '{folder}': it lacks {' and '.join(lacking)}."
        hint = (
            f"Put {TAGGER_MODEL} and {TAGGER_TAGS} of a WD tagger there, for instance those of "
            "SmilingWolf/wd-vit-tagger-v3, or set preprocess.tagger to their folder."
        )
        raise VocableError("caption.missing", title, hint)


def blip_unreadable(folder: Path, reason: str) -> VocableError:
    return VocableError(
        "caption.unreadable", f"The BLIP model in '{folder}' cannot be used: {reason}.", "Copy it anew."
    )


def tagger_unreadable(folder: Path, reason: str) -> VocableError:
    return VocableError("caption.unreadable", f"The tagger in '{folder}' cannot be used: {reason}.", "Copy it anew.")


def _fingerprint(folder: Path, unreadable: Callable[[Path, str], VocableError]) -> str:
    """Twelve hexadecimal digits of the folder's files: name, size, and the content of both ends. Reading gigabytes of
    weights through would take longer than captioning a handful of pictures."""
    try:
        names = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return hashlib.sha256(b"".join(map(_sample, names))).hexdigest()[:12]
    except OSError as error:
        raise unreadable(folder, f"{error.filename} cannot be read ({error.strerror})") from None


def _sample(path: Path) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_SAMPLE_BYTES)
        file.seek(max(0, size - _SAMPLE_BYTES))
        parts = (os.fsencode(path.name), str(size).encode(), head, file.read(_SAMPLE_BYTES))
    return b"".join(hashlib.sha256(part).digest() for part in parts)
