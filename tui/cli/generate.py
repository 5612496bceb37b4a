"""`generate`: pictures from a prompt, which may name words and hypernetworks of the workspace, or like a picture."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import VocableError
from tui.cli.output import print_json, print_text, say
from tui.cli.session import AsJson, build_request, check_paths, connect, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.paths import Workspace
    from daemon.protocol.jobs import GenerateRequest


def generate(
    ctx: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROMPT]",
            help="What the pictures should show; may name words, and hypernetworks as <hypernet:NAME:0.7>.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.png",
            help="File to write; vocable-SEED.png, never an existing one, when absent.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="PICTURE",
            help="Take prompt, seed and settings from this picture; what else is given here goes before them.",
        ),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option("--negative", help="What the pictures should not show.", show_default=False)
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Euler a, Euler, DDIM, DPM++ 2M, DPM++ 2M Karras, LMS, Heun or UniPC.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    cfg_scale: Annotated[float | None, typer.Option("--cfg", help="Guidance scale; 1 means no guidance.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture; drawn when absent.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height in pixels.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="How many pictures; seeds count up.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Base model: a name in models/, a path, or a hash.", show_default="starter")
    ] = None,
    emphasis: Annotated[
        str | None, typer.Option(help="How (weights) act: Original, No norm, Ignore or None.", show_default="Original")
    ] = None,
    clip_skip: Annotated[
        int | None, typer.Option(help="Layer of the text encoder, counted from its end.", show_default="1")
    ] = None,
    compat: Annotated[
        str | None, typer.Option(help="webui: switch prompts as late as AUTOMATIC1111's webui does.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the pictures in the terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make pictures of a prompt, or again like a picture. Ctrl-C cancels."""
    width, height = parse_size(size) if size else (None, None)
    if prompt is None and like is None:
        title = "There is nothing to make: neither a prompt nor a picture to be like."
        raise VocableError("usage.prompt", title, "Write a prompt, or give --like PICTURE.")
    options: dict[str, Any] = {
        "prompts": None if prompt is None else [prompt],
        "negative_prompt": negative_prompt,
        "model": model,
        "sampler": sampler,
        "steps": steps,
        "cfg_scale": cfg_scale,
        "seed": seed,
        "width": width,
        "height": height,
        "emphasis": emphasis,
        "clip_skip": clip_skip,
        "compat": compat,
    }
    if session_of(ctx).host:
        if output is None:
            where = session_of(ctx).host
            raise VocableError("usage.output", f"Pictures are written on {where}.", "Say where, with --output.")
        check_paths(session_of(ctx), output, like)
    given = {name: value for name, value in options.items() if value is not None} | {"count": count}
    if like is not None:
        like = like.expanduser().absolute()
    else:
        _build(given, output)  # what is wrong is told before a service is started
    made = run_waiting(lambda: _make(session_of(ctx).workspace, given, output, like), interrupted=lambda: "Cancelled.")
    if as_json:
        first = made.request
        print_json(
            {"pictures": made.pictures, "prompt": first.prompts[0], "seed": first.seed, "warnings": made.warnings}
        )
    else:
        for warning in made.warnings:
            say(f"warning: {warning}")
        print_text("\n".join(made.pictures))
    if show:
        from tui.cli.pictures import show_pictures

        show_pictures([Path(path) for path in made.pictures])


@dataclass(frozen=True)
class _Made:
    request: GenerateRequest
    pictures: list[str]
    warnings: list[str]
    """What the picture's text could not carry over, then what the worker noticed."""


async def _make(workspace: Workspace, given: dict[str, Any], output: Path | None, like: Path | None) -> _Made:
    from tui.cli.jobs import finish_job
    from tui.cli.progress import open_progress

    async with connect(workspace) as client:
        found, notes = ({}, []) if like is None else await _read_picture(client, like)
        request = _build(found | given, output)
        with open_progress() as progress:
            result = await finish_job(client, await client.generate(request), progress, "sampling")
    return _Made(request, result["pictures"], [*notes, *result.get("warnings", [])])


async def _read_picture(client: Client, picture: Path) -> tuple[dict[str, Any], list[str]]:
    """Fields of the request that a picture was made by, and what they leave out."""
    from daemon.protocol.words import ParametersRequest

    reply = await client.parameters(ParametersRequest(path=str(picture)))
    return reply.request.model_dump(exclude={"output", "count"}, exclude_unset=True), reply.notes


def _build(fields: dict[str, Any], output: Path | None) -> GenerateRequest:
    from daemon.protocol.jobs import GenerateRequest
    from engine.recipe import MAX_SEED

    seed = fields.get("seed", random.randint(0, MAX_SEED - 1000))
    path = choose_output(output, seed, fields["count"])
    return build_request(GenerateRequest, **(fields | {"seed": seed, "output": str(path)}))


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `WxH`."""
    match = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text.strip())
    if not match:
        raise VocableError("usage.size", f"'{text}' is not a size.", "Write width and height in pixels, e.g. 64x64.")
    return int(match[1]), int(match[2])


def choose_output(wanted: Path | None, seed: int, count: int) -> Path:
    """Absolute path of the picture: the one wanted, or one in its folder that no existing file stands in the way of.

    With several pictures `-1`, `-2`, ... come before the suffix, so those must be free as well.
    """
    folder = Path.cwd() if wanted is None else wanted.expanduser().absolute()
    if wanted is not None and not folder.is_dir():
        if folder.suffix.lower() != ".png":
            raise VocableError("usage.output", f"{wanted} is not a PNG file's name.", "End it in .png.")
        return folder
    return next(path for path in _candidates(folder, seed) if not any(file.exists() for file in _files(path, count)))


def _candidates(folder: Path, seed: int) -> Iterator[Path]:
    yield folder / f"vocable-{seed}.png"
    number = 2
    while True:
        yield folder / f"vocable-{seed}({number}).png"
        number += 1


def _files(path: Path, count: int) -> list[Path]:
    if count <= 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]
