"""Which base models there are: folders in diffusers layout, found by name, path or hash.

The supervisor lists and checks models here, the worker loads what was found; so this module reads JSON and bytes
only and never imports torch. The starter model, packaged beside this file, is always the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.errors import VocableError

STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / "starter" / "weights"

WEIGHTS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
"""The networks of a model and the stem of each one's weight file."""

_CONFIGS = ("text_encoder/config.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
_FAMILIES = {768: "sd1", 1024: "sd2"}
_HASH = re.compile(r"[0-9a-f]{10,64}")
_MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelEntry:
    """A complete model folder; its configuration was read, its weights were hashed but not loaded."""

    name: str
    path: Path
    family: str
    """`sd1`, `sd2`, or `starter` for every other width: the starter and models built like it."""
    width: int
    """Length of a token vector."""
    size: int
    """Native edge of a picture in pixels."""
    hash: str
    """First 10 hex digits of the SHA-256 of the U-Net's weight file."""


def find_model(reference: str, folders: Sequence[Path]) -> ModelEntry:
    """Find a model by its name in `folders`, by its path, or by at least 10 digits of its hash.

    A relative path is looked for in each folder, then, if it has a slash, from the current folder.

    Raises:
        VocableError: `model.unknown` when nothing answers to `reference`; `model.unreadable`, which names the missing
            or damaged file, when something does but is no complete model.
    """
    named = {path.name: path for path in reversed(_candidates(folders))} | {STARTER: STARTER_FOLDER}
    if reference in named:
        return read_entry(named[reference], name=reference)
    places = [folder / reference for folder in folders]
    if os.sep in reference:
        places.append(Path(os.path.expanduser(reference)))
    for path in places:
        if reference and os.path.exists(path):
            return read_entry(path.resolve())
    if _HASH.fullmatch(reference.lower()):
        for entry in list_models(folders):
            if _full_hash(entry.path).startswith(reference.lower()):
                return entry
    raise VocableError(
        "model.unknown",
        f"There is no model '{reference}'.",
        f"Known models: {', '.join(sorted(named))}. Put a diffusers folder into models/, or give its path or hash.",
    )


def list_models(folders: Sequence[Path]) -> list[ModelEntry]:
    """All complete models, the starter first, then by name; `find_model` tells what is wrong with one left out.

    Each weight file is hashed once per process and content (size and time of change); the first call on a folder of
    large models takes seconds.
    """
    found: dict[str, ModelEntry] = {}
    for path in [STARTER_FOLDER, *_candidates(folders)]:
        name = STARTER if path == STARTER_FOLDER else path.name
        if name in found:
            continue
        try:
            found[name] = read_entry(path, name=name)
        except VocableError:
            continue
    return list(found.values())


def read_entry(path: Path, *, name: str = "") -> ModelEntry:
    """Read the configuration of one model folder; the name is the folder's unless given.

    Raises:
        VocableError: `model.unreadable` with the file that is missing, damaged or of a kind that is not supported.
    """
    if not path.is_dir():
        raise _unreadable(path, "it is not a folder", "Give a folder in diffusers layout.")
    text, unet, vae = (read_config(path, part)[0] for part in _CONFIGS[:3])
    if (path / "text_encoder_2").exists():
        raise _unreadable(path, "it has two text encoders (SDXL)", "Choose a model of the SD 1.x or SD 2.x family.")
    for part in WEIGHTS:
        weights_file(path, part)
    read_config(path, _CONFIGS[3])
    try:
        width = int(text["hidden_size"])
        edge = unet.get("sample_size") or 64
        size = int(edge if isinstance(edge, int) else edge[0]) * 2 ** (len(vae["block_out_channels"]) - 1)
        channels = (int(unet["in_channels"]), int(unet["out_channels"]), int(vae["latent_channels"]))
        crossed = int(unet["cross_attention_dim"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _unreadable(path, f"a configuration lacks or garbles {error}", _COPY_AGAIN) from None
    if crossed != width:
        raise _unreadable(path, f"its text encoder is {width} wide but its U-Net expects {crossed}", _COPY_AGAIN)
    if len(set(channels)) != 1:
        raise _unreadable(path, "its U-Net has extra channels (inpainting)", "Choose an ordinary text-to-image model.")
    family = _FAMILIES.get(width, "starter")
    return ModelEntry(name or path.name, path, family, width, size, _full_hash(path)[:10])


def other_model(model: str, model_hash: str, *, name: str, hash: str) -> str:
    """How the base model that a word was trained on is called when it is not the given one, else an empty string.

    Compared by the first 10 hex digits of the hashes when both are known; the 8 digits of older programs are made in
    another way and tell nothing, so then, as where there is no hash, by name.

    Args:
        model: what the word's file says, as is `model_hash`; both may be empty.
        name: of the model in use, as is `hash`.
    """
    known = model_hash.lower()[:10]
    same = known == hash.lower()[:10] if len(known) == 10 and hash else model.casefold() in ("", name.casefold())
    if same:
        return ""
    return f"{model} [{model_hash}]" if model and model_hash else model or f"[{model_hash}]"


def read_config(folder: Path, part: str) -> tuple[dict[str, Any], Path]:
    """Read one JSON file of a model folder, e.g. `unet/config.json`; returns its values and its path."""
    path = folder / part
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise _unreadable(folder, f"{part} is larger than a configuration can be", _COPY_AGAIN)
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _unreadable(folder, f"{part} is missing", _COPY_AGAIN) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(folder, f"{part} cannot be read ({error})", _COPY_AGAIN) from None
    if not isinstance(values, dict):
        raise _unreadable(folder, f"{part} is not a JSON object", _COPY_AGAIN)
    return values, path


def weights_file(folder: Path, part: str) -> Path:
    """The weight file of `text_encoder`, `unet` or `vae`: safetensors only, the half-precision variant if alone."""
    stem = WEIGHTS[part]
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / part / name).is_file():
            return folder / part / name
    if next((folder / part).glob("*.bin"), None):
        problem = f"the weights in {part}/ are pickled (.bin), which can run code when read"
        raise _unreadable(folder, problem, "Convert the model to safetensors first.")
    raise _unreadable(folder, f"{part}/{stem}.safetensors is missing", _COPY_AGAIN)


_COPY_AGAIN = "Copy the model again, whole."


def _candidates(folders: Sequence[Path]) -> list[Path]:
    """Folders that look like models, sorted by name inside each of `folders`."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            continue
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        found += [path for path in inside if (path / "model_index.json").exists() or (path / "unet").is_dir()]
    return found


def _full_hash(folder: Path) -> str:
    path = weights_file(folder, "unet")
    try:
        status = path.stat()
        return _hash_file(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise _unreadable(folder, f"{path.name} cannot be read ({error.strerror})", _COPY_AGAIN) from None


@lru_cache(maxsize=256)
def _hash_file(path: Path, size: int, modified_ns: int) -> str:
    """Hash a file of several gigabytes once; size and time stand for its content in the cache's key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(path: Path, problem: str, hint: str) -> VocableError:
    return VocableError("model.unreadable", f"The model {path} cannot be used: {problem}.", hint)
