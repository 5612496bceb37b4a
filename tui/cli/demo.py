"""`demo`: teaches the starter model its sample character in a workspace of its own, and shows before and after.

Everything goes through the service, as any other client's work does. The numbers are measured in this very run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import VocableError
from tui.cli.findings import Findings, close_gap, print_findings
from tui.cli.output import DONE, FAILED, print_json, say
from tui.cli.session import AsJson, Session, connect, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.paths import Workspace
    from daemon.protocol.runs import RunView
    from tui.cli.progress import Progress

WORD = "zara"
TEMPLATE = "portrait_filewords"
STEPS = 500
VECTORS = 12
LEARN_RATE = "0.005:350, 0.001"
CFG_SCALE = 4.0
"""The starter model is small; more guidance than this washes its colours out."""
SEED = 1


def demo(
    ctx: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", metavar="DIR", help="Where to work; vocable-demo in the user's data folder."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running at the end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach the starter model a sample character and show before and after. Minutes, and no files needed."""
    import platformdirs

    from tui.cli.pictures import show_pictures

    option = workspace or session_of(ctx).workspace_option or platformdirs.user_data_path("vocable-demo")
    session = Session(option)
    found = run_waiting(
        lambda: _run(session.workspace, keep=keep),
        interrupted=lambda: f"Interrupted; what was trained is kept. See: {session.command('runs')}",
    )
    if as_json:
        print_json(asdict(found))
    else:
        # Cells of most screens are a pixel or two, so half of the sheet's columns at twice the size show more.
        show_pictures([Path(found.sheet)], coarse_share=0.5)
        print_findings(found, session)
    for shortfall in found.shortfalls:
        say(f"error: {shortfall}")
    raise typer.Exit(FAILED if found.shortfalls else DONE)


async def _run(workspace: Workspace, *, keep: bool) -> Findings:
    """The whole demo; a service that was started for it is stopped at the end, unless `keep`."""
    from tui.cli.progress import open_progress
    from tui.cli.service import is_running, stop_service

    say(f"The demo works in {workspace.root}")
    was_running = await is_running(workspace)
    try:
        with open_progress() as progress:
            return await _teach_and_measure(workspace, progress)
    finally:
        if not (keep or was_running):
            await stop_service(workspace, timeout_s=60)


async def _teach_and_measure(workspace: Workspace, progress: Progress) -> Findings:
    from engine.models.starter.sample import INIT_WORD, TRAIN_DIR
    from tui.cli.sheet import draw_sheet
    from tui.cli.trial import find_free_name, place_folder

    async with connect(workspace) as client:
        word = await find_free_name(client, WORD)
    pictures = place_folder(TRAIN_DIR, workspace.datasets / "sample character")
    progress.say(f"It teaches the word '{word}', beginning as '{INIT_WORD}', with the pictures in {pictures}")
    run = await _train(workspace, make_recipe(word, INIT_WORD, pictures), progress)
    folder = workspace.root / "demo" / word
    losses, before, after = await _try_out(workspace, word, folder, progress)
    progress.say("Comparing the pictures with this and 49 other characters.")
    identified = {
        "init": await asyncio.to_thread(identify, before),
        "trained": await asyncio.to_thread(identify, after),
    }
    sheet = folder / "before-after.png"
    rows = [
        (f"what '{word}' was taught with", sorted(pictures.glob("*.png"))),
        (f"before: '{INIT_WORD}'", before),
        (f"after: '{word}', same prompts and seed", after),
    ]
    draw_sheet(sheet, rows)
    return Findings(
        losses=dict(zip(("init", "trained", "oracle"), losses, strict=True)),
        gap_closed=close_gap(*losses),
        identified=identified,
        train_seconds=round((run.ended_at or 0) - (run.started_at or 0), 1),
        embedding=run.embedding,
        sheet=str(sheet),
        run=run.id,
        workspace=str(workspace.root),
    )


async def _try_out(
    workspace: Workspace, word: str, folder: Path, progress: Progress
) -> tuple[list[float], list[Path], list[Path]]:
    """Losses of init word, word and true description on the held-out pictures, and pictures drawn before and after."""
    from engine.models.starter.sample import HELD_OUT_DIR, INIT_WORD, ORACLE_TEXT, PROMPTS
    from tui.cli.trial import check_word, draw_prompts, evaluate_phrases

    def fill(phrase: str) -> list[str]:
        return [prompt.text.replace("[name]", phrase) for prompt in PROMPTS]

    async with connect(workspace) as client:
        await check_word(client, word)
        losses = await evaluate_phrases(client, (INIT_WORD, word, ORACLE_TEXT), HELD_OUT_DIR, TEMPLATE, SEED, progress)
        before = await draw_prompts(client, fill(INIT_WORD), folder / "before.png", CFG_SCALE, SEED, progress)
        after = await draw_prompts(client, fill(word), folder / "after.png", CFG_SCALE, SEED, progress)
    return losses, before, after


async def _train(workspace: Workspace, recipe: dict[str, Any], progress: Progress) -> RunView:
    """Queue the run and follow it to its end; when this is cancelled, the run is stopped."""
    from tui.cli.follow import follow_run

    async with connect(workspace) as client:
        queued = await client.create_run(recipe)
        try:
            run = await follow_run(workspace, queued.id, progress)
        except asyncio.CancelledError:
            with contextlib.suppress(VocableError):
                await client.command(queued.id, "stop")
            raise
    if run.state == "finished":
        return run
    if run.error:
        raise VocableError("demo.failed", run.error.title, run.error.hint)
    raise VocableError("demo.stopped", f"The run was stopped at step {run.step}.", "Start the demo again.")


def make_recipe(word: str, init_text: str, pictures: Path) -> dict[str, Any]:
    """The demo's recipe as plain values; every draw is seeded."""
    return {
        "name": word,
        "start": {"init_text": init_text, "vectors": VECTORS},
        "data": {"folder": str(pictures), "template": TEMPLATE},
        "train": {"learn_rate": LEARN_RATE, "steps": STEPS, "batch_size": 4, "seed": SEED},
        "preview": {
            "prompt": "portrait of [name], smiling, yellow background",
            "cfg_scale": CFG_SCALE,
            "seed": SEED,
        },
    }


def identify(pictures: Sequence[Path]) -> float:
    """Share (0 to 1) of the pictures, one for each of the sample's prompts, that show the sample character."""
    from PIL import Image

    from engine.models.starter.measure import identified
    from engine.models.starter.sample import CHARACTER, PROMPTS

    images = []
    for path in pictures:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return identified(images, CHARACTER, [prompt.scene for prompt in PROMPTS])
