"""Which base models there are: diffusers folders and single files, found by name, path or hash.

The supervisor lists and checks models here, the worker loads what was found; so this module reads JSON, headers and
bytes only and never imports torch. The starter model, packaged beside this file, is always the first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import VocableError
from engine.models.hashes import Stamp, find_hash, read_stamp

if TYPE_CHECKING:
    from engine.models.checkpoints import Checkpoint

STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / "starter" / "weights"

WEIGHTS = {
    "text_encoder": ("model", "pytorch_model"),
    "text_encoder_2": ("model", "pytorch_model"),
    "unet": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
}
"""The networks of a model, with the stem of each one's weight file: as safetensors, and pickled (.bin)."""

SUFFIXES = (".safetensors", ".ckpt")
"""Of single files; of two with one name, the kind further left is used."""

_CONFIGS = ("text_encoder/config.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
_FAMILIES = {768: "sd1", 1024: "sd2"}
_HASH = re.compile(r"[0-9a-f]{10,64}")
_MAX_CONFIG_BYTES = 1 << 20
_DEPTH = 3
"""Levels of folders in which single files are looked for."""
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_MAX_LEVELS = 8
"""Of the resolutions of a VAE: those of every family have 3 or 4."""
_MAX_EDGE = 1 << 20
"""Largest width, edge or number of channels that a configuration may tell."""


@dataclass(frozen=True)
class ModelEntry:
    """A complete model; its configuration was read, its weights were hashed but not loaded."""

    name: str
    path: Path
    """A folder in diffusers layout, or a single file."""
    family: str
    """`sd1`, `sd2`, `sdxl`, or `starter` for folders of every other width: the starter and models built like it."""
    width: int
    """Length of a token vector; of two text encoders, the sum of theirs."""
    size: int
    """Native edge of a picture in pixels."""
    hash: str
    """First 10 hex digits of the SHA-256 of the file, in a folder of the U-Net's weight file; empty while it is not
    known, which happens only to those who do not wait for it."""
    split: int = 0
    """Columns of the first text encoder in a token vector when there are two; 0 for one."""
    prediction_type: str = ""
    """`epsilon`, `v_prediction` or `sample`; empty when only the loaded U-Net can tell."""
    inpainting: bool = False
    """The U-Net also takes a mask and a masked picture; here they always say that all is to be painted."""


def find_model(reference: str, folders: Sequence[Path], *, cache: Path | None = None, wait: bool = True) -> ModelEntry:
    """Find a model by its name in `folders`, by its path, or by at least 10 digits of its hash.

    A relative path is looked for in each folder, then, if it has a slash, from the current folder.

    Args:
        cache: folder in which hashes of large files are kept.
        wait: hash a large file whose hash is not known; takes seconds for each gigabyte. Without, the entry's hash
            is empty then.

    Raises:
        VocableError: `model.unknown` when nothing answers to `reference`; `model.unreadable`, which names the missing
            or damaged file, when something does but is no complete model.
    """
    named = {_name(path): path for path in reversed(_candidates(folders))} | {STARTER: STARTER_FOLDER}
    if reference in named:
        return read_entry(named[reference], name=reference, cache=cache, wait=wait)
    places = [folder / reference for folder in folders]
    if os.sep in reference:
        places.append(Path(os.path.expanduser(reference)))
    for path in places:
        if reference and os.path.exists(path):
            return read_entry(path.resolve(), cache=cache, wait=wait)
    if _HASH.fullmatch(reference.lower()):
        for entry in list_models(folders, cache=cache, wait=wait):
            if entry.hash and find_hash(_hashed_file(entry.path), cache=cache, wait=wait).startswith(reference.lower()):
                return entry
    raise VocableError(
        "model.unknown",
        f"There is no model '{reference}'.",
        f"Known models: {', '.join(sorted(named))}. Put a checkpoint or a diffusers folder into models/, or give its"
        " path or hash.",
    )


def list_models(folders: Sequence[Path], *, cache: Path | None = None, wait: bool = True) -> list[ModelEntry]:
    """All complete models, the starter first, then by name; `find_model` tells what is wrong with one left out.

    `cache` and `wait` are as in `find_model`.
    """
    found: dict[str, ModelEntry] = {}
    for path in [STARTER_FOLDER, *_candidates(folders)]:
        name = STARTER if path == STARTER_FOLDER else _name(path)
        if name in found:
            continue
        try:
            found[name] = read_entry(path, name=name, cache=cache, wait=wait)
        except VocableError:
            continue
    return list(found.values())


def read_entry(path: Path, *, name: str = "", cache: Path | None = None, wait: bool = True) -> ModelEntry:
    """Read the configuration of one model; the name is the folder's or the file's unless given.

    `cache` and `wait` are as in `find_model`.

    Raises:
        VocableError: `model.unreadable` with the file that is missing, damaged or of a kind that is not supported.
    """
    name = name or _name(path)
    if path.is_dir():
        entry = _read_folder(path, name)
    elif path.suffix.lower() in SUFFIXES:
        entry = _read_file(path, name)
    else:
        raise _unreadable(
            path, "it is neither a folder nor a checkpoint", "Give a .safetensors or .ckpt file, or a diffusers folder."
        )
    try:
        digest = find_hash(_hashed_file(path), cache=cache, wait=wait)
    except OSError as error:
        raise _unreadable(path, f"it cannot be read ({error.strerror})", _COPY_AGAIN) from None
    return replace(entry, hash=digest[:10])


def read_checkpoint(path: Path) -> Checkpoint:
    """What a single file is; its header is read once for each content. Raises VocableError `model.unreadable`."""
    try:
        sidecar = path.with_suffix(".yaml")
        beside = read_stamp(sidecar) if sidecar.is_file() else None
        found = _describe_file(path, read_stamp(path), beside)
    except OSError as error:
        raise _unreadable(path, f"it cannot be read ({error.strerror})", _COPY_AGAIN) from None
    if isinstance(found, VocableError):
        # A new one each time: an error that is raised again and again holds on to every frame that it went through.
        raise VocableError(found.code, found.title, found.hint)
    return found


@lru_cache(maxsize=1024)
def _describe_file(path: Path, stamp: Stamp, beside: Stamp | None) -> Checkpoint | VocableError:
    """What is wrong is remembered too: a folder full of other files is looked through once. A file that cannot be
    opened is not: permissions change without its stamp."""
    # The service starts without numpy, and in many workspaces never needs it.
    from engine.models.checkpoints import describe_checkpoint
    from engine.models.weights import open_weights

    try:
        with open_weights(path) as weights:
            return describe_checkpoint(path, weights)
    except VocableError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return error


def _read_file(path: Path, name: str) -> ModelEntry:
    found = read_checkpoint(path)
    unet, widths = found.configs["unet"], [found.configs["text_encoder"]["hidden_size"]]
    if "text_encoder_2" in found.configs:
        widths.append(found.configs["text_encoder_2"]["hidden_size"])
    return ModelEntry(
        name,
        path,
        found.family,
        sum(widths),
        found.size,
        "",
        split=widths[0] if len(widths) > 1 else 0,
        prediction_type=found.prediction_type,
        inpainting=unet["in_channels"] != unet["out_channels"],
    )


def _read_folder(path: Path, name: str) -> ModelEntry:
    text, unet, vae, scheduler = (read_config(path, part)[0] for part in _CONFIGS)
    second = read_config(path, "text_encoder_2/config.json")[0] if (path / "text_encoder_2").exists() else {}
    for part in parts_of(path):
        weights_file(path, part)
    try:
        widths = [_count(config, "hidden_size") for config in (text, second) if config]
        edge = unet.get("sample_size") or 64
        edge = _count({"sample_size": edge if isinstance(edge, int) else edge[0]}, "sample_size")
        levels = len(vae["block_out_channels"])
        if not 1 <= levels <= _MAX_LEVELS:
            raise ValueError("block_out_channels")
        inputs, outputs, crossed = (_count(unet, key) for key in ("in_channels", "out_channels", "cross_attention_dim"))
        latents = _count(vae, "latent_channels")
        prediction = scheduler.get("prediction_type", "epsilon")
        if prediction not in _PREDICTIONS:
            raise ValueError("prediction_type")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _unreadable(path, f"a configuration lacks or garbles {error}", _COPY_AGAIN) from None
    if crossed != sum(widths):
        raise _unreadable(path, f"its text is {sum(widths)} wide but its U-Net expects {crossed}", _COPY_AGAIN)
    if outputs != latents or inputs not in (outputs, 2 * outputs + 1):
        raise _unreadable(
            path, f"its U-Net is made for another task ({inputs} channels)", "Choose a text-to-image model."
        )
    return ModelEntry(
        name,
        path,
        "sdxl" if second else _FAMILIES.get(widths[0], "starter"),
        sum(widths),
        edge * 2 ** (levels - 1),
        "",
        split=widths[0] if second else 0,
        prediction_type=prediction,
        inpainting=inputs != outputs,
    )


def _count(config: dict[str, Any], key: str) -> int:
    """A whole number of a configuration. Raises KeyError or ValueError with its name."""
    value = config[key]
    if type(value) is not int or not 1 <= value <= _MAX_EDGE:
        raise ValueError(key)
    return value


def parts_of(folder: Path) -> list[str]:
    """The networks that a diffusers folder has."""
    return [part for part in WEIGHTS if part != "text_encoder_2" or (folder / part).exists()]


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
    """The weight file of a network: safetensors before pickled ones, the half-precision variant if it is alone."""
    safe, pickled = WEIGHTS[part]
    for name in (f"{safe}.safetensors", f"{safe}.fp16.safetensors", f"{pickled}.bin", f"{pickled}.fp16.bin"):
        if (folder / part / name).is_file():
            return folder / part / name
    raise _unreadable(folder, f"{part}/{safe}.safetensors is missing", _COPY_AGAIN)


_COPY_AGAIN = "Copy the model again, whole."


def _hashed_file(path: Path) -> Path:
    return weights_file(path, "unet") if path.is_dir() else path


def _name(path: Path) -> str:
    return path.stem if path.suffix.lower() in SUFFIXES and not path.is_dir() else path.name


def _candidates(folders: Sequence[Path]) -> list[Path]:
    """Folders and files that look like models: of each of `folders` the folders, then the files, sorted by name."""
    found: list[Path] = []
    for folder in folders:
        seen = list(_look(folder, _DEPTH))
        found += sorted(path for path, is_folder in seen if is_folder)
        files = [path for path, is_folder in seen if not is_folder]
        found += sorted(files, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path))
    return found


def _look(folder: Path, depth: int) -> Iterator[tuple[Path, bool]]:
    """What looks like a model in a folder and those inside it, with whether it is a folder."""
    try:
        inside = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:
        return
    for entry in inside:
        path = folder / entry.name
        if entry.is_dir():
            if (path / "model_index.json").exists() or (path / "unet").is_dir():
                yield path, True
            elif depth > 1:
                yield from _look(path, depth - 1)
        elif path.suffix.lower() in SUFFIXES and not path.stem.lower().endswith(".vae"):
            yield path, False


def _unreadable(path: Path, problem: str, hint: str) -> VocableError:
    return VocableError("model.unreadable", f"The model {path} cannot be used: {problem}.", hint)
