"""`generate`: pictures from a prompt, in which every word of the embeddings folder may stand."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import VocableError
from tui.cli.output import print_json, print_text
from tui.cli.session import AsJson, build_request, connect, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.paths import Workspace
    from daemon.protocol.jobs import GenerateRequest


def generate(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the pictures should show.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.png",
            help="File to write; vocable-SEED.png, never an existing one, when absent.",
        ),
    ] = None,
    negative_prompt: Annotated[str, typer.Option("--negative", help="What the pictures should not show.")] = "",
    sampler: Annotated[
        str | None, typer.Option(help="Euler a, Euler, DDIM, DPM++ 2M, DPM++ 2M Karras, LMS, Heun or UniPC.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    cfg_scale: Annotated[float | None, typer.Option("--cfg", help="Guidance scale; 1 means no guidance.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture; drawn when absent.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height in pixels.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="How many pictures; seeds count up.")] = 1,
    model: Annotated[str, typer.Option(help="Base model: a name in models/, a path, or a hash.")] = "starter",
    show: Annotated[bool, typer.Option("--show", help="Show the pictures in the terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make pictures of a prompt. Ctrl-C cancels."""
    from daemon.protocol.jobs import GenerateRequest
    from engine.recipe import MAX_SEED

    width, height = parse_size(size) if size else (None, None)
    seed = random.randint(0, MAX_SEED - 1000) if seed is None else seed
    request = build_request(
        GenerateRequest,
        prompts=[prompt],
        negative_prompt=negative_prompt,
        model=model,
        sampler=sampler,
        steps=steps,
        cfg_scale=cfg_scale,
        seed=seed,
        width=width,
        height=height,
        count=count,
        output=str(choose_output(output, seed, count)),
    )
    result = run_waiting(lambda: _make(session_of(ctx).workspace, request), interrupted=lambda: "Cancelled.")
    pictures: list[str] = result["pictures"]
    if as_json:
        print_json({"pictures": pictures, "prompt": prompt, "seed": seed})
    else:
        print_text("\n".join(pictures))
    if show:
        from tui.cli.pictures import show_pictures

        show_pictures([Path(path) for path in pictures])


async def _make(workspace: Workspace, request: GenerateRequest) -> dict[str, Any]:
    from tui.cli.jobs import finish_job
    from tui.cli.progress import open_progress

    async with connect(workspace) as client:
        with open_progress() as progress:
            return await finish_job(client, await client.generate(request), progress, "sampling")


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
