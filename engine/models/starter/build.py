"""Builds the starter model from nothing: pictures, tokenizer, VAE, text encoder and U-Net.

`python -m engine.models.starter.build OUT [--budget cpu|gpu] [--resume] [--export]`. Checkpoints live in a work folder
beside OUT; an interrupted build goes on with `--resume`, and `--export` writes OUT from the newest checkpoints at any
time. Uses CUDA when there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from engine.errors import VocableError
from engine.models.starter.build_data import Pictures, draw_pictures, prepare_pictures
from engine.models.starter.build_export import assemble, export, measure_attributes, sample_sheet
from engine.models.starter.build_loop import Job
from engine.models.starter.build_recipes import RECIPES, Plan, Recipe
from engine.models.starter.build_tokenizer import save_tokenizer, train_tokenizer
from engine.models.starter.build_unet import make_text_encoder, make_unet, tokenize, train_unet
from engine.models.starter.build_vae import encode_pictures, make_vae, train_decoder, train_vae

_UNSEEN = 256
_UNSEEN_SEED_OFFSET = 1_000_000
_TOKENIZER_PICTURES = 5_000
_SAMPLE_SEED = 1


def build(
    out: Path,
    work: Path,
    recipe: Recipe,
    *,
    device: torch.device,
    resume: bool = False,
    stop: Callable[[str, int], bool] = lambda stage, step: False,
) -> bool:
    """Build into `out`; True when finished, False when `stop(stage, step)` ended it at a checkpoint in `work`.

    Raises VocableError when `work` holds another build, or one that `resume` does not ask for.
    """
    _open_work(work, recipe, resume)
    job = Job(recipe, work, device, stop)
    job.log("start", {**_machine(device), "recipe": asdict(recipe)})
    pictures = prepare_pictures(work, recipe.pictures, recipe.seed, recipe.captions_each)
    unseen = draw_pictures(0, min(_UNSEEN, recipe.pictures), recipe.seed + _UNSEEN_SEED_OFFSET, 1)
    tokenizer = _tokenizer(work, pictures, recipe.vocabulary)
    if (vae := train_vae(job, pictures.pixels, unseen[0])) is None:
        return False
    latents = encode_pictures(vae, pictures.pixels, work / "latents.pt", device)
    unseen_latents = encode_pictures(vae, unseen[0], work / "unseen.pt", device)
    scale = _latent_scale(unseen_latents)
    trained = train_unet(
        job,
        tokenizer,
        (latents * scale, tokenize(tokenizer, pictures.captions)),
        (unseen_latents * scale, tokenize(tokenizer, unseen[1])),
    )
    if trained is None or not train_decoder(job, vae, pictures.pixels, latents, unseen[0]):
        return False
    _finish(job, out, assemble(tokenizer, *trained, _scaled(vae, scale)))
    return True


def export_newest(out: Path, work: Path) -> None:
    """Write `out` from the moving averages in the newest checkpoints of `work`, whether or not the build has ended.

    Raises VocableError when `work` has no U-Net yet.
    """
    if not (work / "unet.pt").exists():
        raise VocableError(
            "starter.nothing", f"{work} holds no U-Net yet.", "Wait for the build to write its first checkpoint."
        )
    recipe = _stored_recipe(work)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer", local_files_only=True)
    vae = make_vae(recipe.vae_channels)
    vae.load_state_dict(_average(work / "vae.pt")["vae"])
    if (work / "decoder.pt").exists():
        for name, weights in _average(work / "decoder.pt").items():
            getattr(vae, name).load_state_dict(weights)
    text_encoder = make_text_encoder(tokenizer, recipe.text_width, recipe.text_layers)
    unet = make_unet(recipe.unet_channels, recipe.unet_attention, recipe.text_width)
    average = _average(work / "unet.pt")
    text_encoder.load_state_dict(average["text_encoder"])
    unet.load_state_dict(average["unet"])
    scale = _latent_scale(torch.load(work / "unseen.pt", weights_only=True))
    job = Job(recipe, work, torch.device("cpu"), lambda stage, step: False)
    _finish(job, out, assemble(tokenizer, text_encoder, unet, _scaled(vae, scale)))


def _finish(job: Job, out: Path, pipeline: StableDiffusionPipeline) -> None:
    """Write the model, its sample sheet and the log, which ends with what the model can do."""
    out.mkdir(parents=True, exist_ok=True)
    size = export(pipeline, out)
    sample_sheet(pipeline, seed=_SAMPLE_SEED, columns=job.recipe.sheet_columns).save(out / "samples.png")
    figures = measure_attributes(pipeline, job.recipe.checked_pictures, seed=_SAMPLE_SEED)
    job.log("export", {"bytes": size, **figures})
    (out / "build.jsonl").write_bytes((job.work / "build.jsonl").read_bytes())


def _open_work(work: Path, recipe: Recipe, resume: bool) -> None:
    if (work / "recipe.json").exists():
        if not resume:
            raise VocableError(
                "starter.unfinished", f"{work} holds a build already.", "Go on with --resume, or remove the folder."
            )
        if _without_lengths(_stored_recipe(work)) != _without_lengths(recipe):
            raise VocableError(
                "starter.recipe", f"{work} was begun with another recipe.", "Choose that recipe, or remove the folder."
            )
    work.mkdir(parents=True, exist_ok=True)
    (work / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


def _stored_recipe(work: Path) -> Recipe:
    values: dict[str, Any] = json.loads((work / "recipe.json").read_text(encoding="utf-8"))
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    plans = {name: Plan(**value) for name, value in values.items() if isinstance(value, dict)}
    return Recipe(**{**values, **lists, **plans})


def _without_lengths(recipe: Recipe) -> Recipe:
    """How long the networks train may change between a stop and a resume; nothing else may."""
    plans = {name: replace(getattr(recipe, name), steps=0, minutes=0) for name in ("vae", "unet", "decoder")}
    return replace(recipe, **plans)


def _tokenizer(work: Path, pictures: Pictures, size: int) -> CLIPTokenizer:
    folder = work / "tokenizer"
    if not (folder / "merges.txt").exists():
        texts = (text for captions in pictures.captions[:_TOKENIZER_PICTURES] for text in captions)
        save_tokenizer(train_tokenizer(texts, size), folder)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _average(checkpoint: Path) -> dict[str, dict[str, torch.Tensor]]:
    average: dict[str, dict[str, torch.Tensor]] = torch.load(checkpoint, map_location="cpu", weights_only=True)[
        "average"
    ]
    return average


def _latent_scale(latents: torch.Tensor) -> float:
    """The factor that gives latents (N, 2, ...), mean and deviation, unit variance."""
    mean, deviation = latents.to(torch.float32).unbind(1)
    return float((mean.var() + deviation.square().mean()).rsqrt())


def _scaled(vae: Any, scale: float) -> Any:
    vae.register_to_config(scaling_factor=scale)
    return vae


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.models.starter.build", description="Build the starter model."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the finished model")
    parser.add_argument("--budget", choices=sorted(RECIPES), help="recipe (default: gpu when there is one, else cpu)")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder for checkpoints (default: OUT.build beside OUT)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the build in the work folder")
    parser.add_argument("--export", action="store_true", help="only write OUT from the newest checkpoints")
    given = parser.parse_args(arguments)
    work = given.work or given.out.with_name(f"{given.out.name}.build")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = RECIPES[given.budget or ("gpu" if device.type == "cuda" else "cpu")]
    asked_to_stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, frame: asked_to_stop.append(signum))
    try:
        if given.export:
            export_newest(given.out, work)
            return 0
        finished = build(
            given.out, work, recipe, device=device, resume=given.resume, stop=lambda stage, step: bool(asked_to_stop)
        )
    except VocableError as error:
        print(f"{error.title} {error.hint}", file=sys.stderr)
        return 2
    if not finished:
        print(f"Stopped at a checkpoint in {work}. Go on with --resume.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
