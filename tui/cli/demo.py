"""`demo`: teaches the starter model its sample character in a workspace of its own, and shows before and after.

Everything goes through the service, as any other client's work does. The numbers are measured in this very run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import VocableError
from tui.cli.output import DONE, FAILED, print_json, print_text, say
from tui.cli.session import AsJson, Session, connect, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.paths import Workspace
    from daemon.protocol.runs import RunView
    from tui.cli.progress import Progress

WORD = "zara"
TEMPLATE = "portrait_filewords"
STEPS = 400
VECTORS = 4
SEED = 1
LEAST_GAP_CLOSED = 0.8
LEAST_IDENTIFIED = 0.8


@dataclass(frozen=True)
class Measured:
    """What the demo found out. Losses are mean squared errors on the held-out pictures."""

    losses: dict[str, float]
    """`init`: the word it starts from; `trained`: the new word; `oracle`: the true description."""
    gap_closed: float | None
    """Share of the way from the init word's loss to the oracle's; may pass 1, since a description is no bound. None
    when the description is no better than the init word."""
    identified: dict[str, float]
    """Share (0 to 1) of 32 pictures that look more like this character than like any of 49 others."""
    train_seconds: float
    embedding: str
    sheet: str
    run: str
    workspace: str

    @property
    def shortfalls(self) -> list[str]:
        """Sentences about what is not as good as it should be."""
        told = []
        if self.gap_closed is None or self.gap_closed < LEAST_GAP_CLOSED:
            told.append(f"The word closes {_percent(self.gap_closed)} of the gap; {_percent(LEAST_GAP_CLOSED)} is due.")
        if self.identified["trained"] < LEAST_IDENTIFIED:
            told.append(
                f"{_percent(self.identified['trained'])} of its pictures show the character; "
                f"{_percent(LEAST_IDENTIFIED)} is due."
            )
        return told


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

    option = workspace or session_of(ctx).workspace_option or platformdirs.user_data_path("vocable-demo")
    session = Session(option)
    measured: Measured = run_waiting(
        lambda: _run(session.workspace, keep=keep),
        interrupted=lambda: f"Interrupted; what was trained is kept. See: {session.command('runs')}",
    )
    if as_json:
        print_json(asdict(measured))
    else:
        _print_summary(measured, session)
    for shortfall in measured.shortfalls:
        say(f"error: {shortfall}")
    raise typer.Exit(FAILED if measured.shortfalls else DONE)


async def _run(workspace: Workspace, *, keep: bool) -> Measured:
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


async def _teach_and_measure(workspace: Workspace, progress: Progress) -> Measured:
    from engine.models.starter.sample import HELD_OUT_DIR, INIT_WORD, ORACLE_TEXT, PROMPTS, TRAIN_DIR
    from tui.cli.sheet import draw_sheet
    from tui.cli.trial import check_word, draw_prompts, evaluate_phrases, find_free_name, place_folder

    async with connect(workspace) as client:
        word = await find_free_name(client, WORD)
    pictures = place_folder(TRAIN_DIR, workspace.datasets / "sample character")
    progress.say(f"It teaches the word '{word}', beginning as '{INIT_WORD}', with the pictures in {pictures}")
    run = await _train(workspace, make_recipe(word, INIT_WORD, pictures), progress)

    async with connect(workspace) as client:
        await check_word(client, word)
        phrases = (INIT_WORD, word, ORACLE_TEXT)
        losses = await evaluate_phrases(client, phrases, HELD_OUT_DIR, TEMPLATE, SEED, progress)
        folder = workspace.root / "demo" / word
        drawn = []
        for stem, phrase in (("before", INIT_WORD), ("after", word)):
            prompts = [prompt.text.replace("[name]", phrase) for prompt in PROMPTS]
            label = f"drawing '{phrase}'"
            drawn.append(await draw_prompts(client, prompts, folder / f"{stem}.png", SEED, progress, label))
    progress.say("Comparing the pictures with this and 49 other characters.")
    shares = [await asyncio.to_thread(identify, paths) for paths in drawn]

    sheet = folder / "before-after.png"
    rows = [
        (f"what '{word}' was taught with", sorted(pictures.glob("*.png"))),
        (f"before: '{INIT_WORD}'", drawn[0]),
        (f"after: '{word}', same prompts and seed", drawn[1]),
    ]
    draw_sheet(sheet, rows)
    return Measured(
        losses=dict(zip(("init", "trained", "oracle"), losses, strict=True)),
        gap_closed=close_gap(*losses),
        identified={"init": shares[0], "trained": shares[1]},
        train_seconds=round((run.ended_at or 0) - (run.started_at or 0), 1),
        embedding=run.embedding,
        sheet=str(sheet),
        run=run.id,
        workspace=str(workspace.root),
    )


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
        "train": {"learn_rate": "0.005", "steps": STEPS, "batch_size": 4, "seed": SEED},
        "preview": {"prompt": "portrait of [name], smiling, yellow background", "seed": SEED},
    }


def close_gap(init: float, trained: float, oracle: float) -> float | None:
    """Share of the gap from `init` down to `oracle` that `trained` closes; None when there is no gap."""
    return (init - trained) / (init - oracle) if init > oracle else None


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


def _print_summary(measured: Measured, session: Session) -> None:
    from tui.cli.pictures import show_pictures

    show_pictures([Path(measured.sheet)], coarse_share=0.5)
    losses, shares = measured.losses, measured.identified
    word = Path(measured.embedding).stem
    print_text(
        f"""
loss on held-out pictures   init word {losses["init"]:.4f}, trained word {losses["trained"]:.4f}, \
true description {losses["oracle"]:.4f}
gap closed                  {_percent(measured.gap_closed)}
pictures of the character   init word {_percent(shares["init"])}, trained word {_percent(shares["trained"])}
training took               {measured.train_seconds:.0f} s

the word                    {measured.embedding}
before and after            {measured.sheet}
everything else             {measured.workspace}

Next: {session.command("generate", f"ink drawing of {word}, blue background", "-o", "out.png")}
      {session.command("train", "--name", "mine", "--images", "FOLDER_OF_PICTURES", "--init", "girl")}"""
    )


def _percent(share: float | None) -> str:
    return "nothing" if share is None else f"{100 * share:.0f} %"
