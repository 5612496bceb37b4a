"""`preprocess`: from a folder of photos to a dataset, or a look at what would be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import VocableError
from tui.cli.output import DONE, FAILED, print_json, print_text, say
from tui.cli.session import AsJson, connect, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.paths import Workspace
    from daemon.protocol.preprocess import PictureView, PreprocessJob, PreprocessResult

_MAX_TOLD = 20
"""Lines about what failed or is to be seen to, in this order, on a screen; preprocess.json has them all."""

_INTERRUPTED = "Cancelled. What was prepared stays; the same command goes on from there."


def preprocess(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(metavar="SRC", help="Folder of pictures, or a name in datasets/.", show_default=False),
    ] = None,
    destination: Annotated[
        str | None,
        typer.Argument(
            metavar="DST",
            help="Folder for the prepared pictures; a bare name is one in datasets/. Named like SRC when absent.",
            show_default=False,
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Width in pixels.", show_default="512")] = None,
    height: Annotated[int | None, typer.Option(help="Height in pixels.", show_default="512")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Write mirrored copies as well.")] = False,
    split: Annotated[bool, typer.Option("--split", help="Cut long pictures into pieces that overlap.")] = False,
    focal_crop: Annotated[
        bool, typer.Option("--focal-crop", help="Cut around faces, edges and rich regions, not in the middle.")
    ] = False,
    auto_size: Annotated[
        bool, typer.Option("--auto-size", help="Choose each picture's size after its proportions.")
    ] = False,
    keep_size: Annotated[bool, typer.Option("--keep-size", help="Also write pictures in their own size.")] = False,
    alpha: Annotated[
        str | None, typer.Option(help="Transparency: flatten it, or keep it as a mask.", show_default="flatten")
    ] = None,
    caption: Annotated[
        str | None, typer.Option(help="Who words captions: none, blip, tags or starter.", show_default="none")
    ] = None,
    existing: Annotated[
        str | None,
        typer.Option(help="Text beside a source: ignore, copy, prepend or append it.", show_default="ignore"),
    ] = None,
    caption_to: Annotated[
        str | None, typer.Option(help="Captions go into txt files, or into the pictures' name.", show_default="txt")
    ] = None,
    duplicates: Annotated[
        str | None, typer.Option(help="Pictures that look the same: off, warn or skip.", show_default="warn")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any option, as --options lists them; may be repeated."),
    ] = None,
    list_all: Annotated[bool, typer.Option("--options", help="List every option with its default, and end.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done to each picture; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare a folder of photos for training: turn, crop, resize, caption. Ctrl-C cancels.

    What did not change since an earlier call is not done again, and a training run goes on meanwhile.
    """
    from tui.cli.preparing import build_job, list_options

    if list_all:
        return list_options(as_json=as_json)
    if source is None:
        raise VocableError("usage.nothing", "There is nothing to prepare.", "Give a folder: vocable preprocess SRC DST")
    flags: dict[str, Any] = {
        "width": width,
        "height": height,
        "flip": flip or None,
        "split.enabled": split or None,
        "focal_crop.enabled": focal_crop or None,
        "auto_size.enabled": auto_size or None,
        "keep_size": keep_size or None,
        "alpha": alpha,
        "captions.make": caption,
        "captions.existing": existing,
        "captions.save_to": caption_to,
        "checks.duplicates": duplicates,
    }
    session = session_of(ctx)
    job = build_job(session, source, destination, flags, assignments or [], dry_run=dry_run)
    result = run_waiting(lambda: _prepare(session.workspace, job), interrupted=lambda: _INTERRUPTED)
    if as_json:
        print_json(result)
    elif dry_run:
        _print_plan(result)
    else:
        _tell(result)
    raise typer.Exit(FAILED if result.failed and not result.files else DONE)


async def _prepare(workspace: Workspace, job: PreprocessJob) -> PreprocessResult:
    from daemon.protocol.preprocess import PreprocessResult
    from tui.cli.jobs import finish_job
    from tui.cli.progress import open_progress

    async with connect(workspace) as client:
        with open_progress() as progress:
            result = await finish_job(client, await client.preprocess(job), progress, "preparing")
    return PreprocessResult.model_validate(result)


def _print_plan(result: PreprocessResult) -> None:
    for picture in result.pictures:
        print_text(_describe(picture))
    hidden = result.total - len(result.pictures)
    if hidden > 0:
        say(f"and {hidden} more pictures")
    _tell_lines(_gather([(picture.source, text) for picture in result.pictures for text in picture.warnings]), result)
    _tell_passed_over(result)
    say(f"{_count(result)}; they would be in {result.destination}. Nothing was written.")


def _describe(picture: PictureView) -> str:
    if not picture.outputs:
        return f"{picture.source}: {picture.state}. {picture.reason}"
    outputs = [
        f"{output.name} ({output.step}, {output.width}x{output.height}{', mirrored' if output.flipped else ''})"
        for output in picture.outputs
    ]
    state = " (unchanged)" if picture.state == "unchanged" else ""
    return f"{picture.source}{state} -> {', '.join(outputs)}"


def _tell(result: PreprocessResult) -> None:
    reasons = [(picture.source, picture.reason) for picture in result.pictures if picture.reason]
    warnings = [(picture.source, text) for picture in result.pictures for text in picture.warnings]
    _tell_lines(_gather(reasons) + _gather(warnings), result)
    _tell_passed_over(result)
    if result.left:
        hint = "--set remove_left=true removes them"
        say(f"{len(result.left)} files of pictures that are gone from the source are still there; {hint}.")
    if result.removed:
        say(f"{len(result.removed)} files of pictures that are gone from the source were removed.")
    if result.uncaptioned:
        say(f"{result.uncaptioned} pictures have no caption: nothing could be said about them.")
    say(f"{_count(result)}.")
    print_text(result.destination)


def _gather(told: list[tuple[str, str]]) -> list[str]:
    """A line for each sentence, with the pictures that it is told of: photos of one camera have the same faults."""
    pictures: dict[str, list[str]] = {}
    for source, text in told:
        pictures.setdefault(text, []).append(source)
    return [
        f"{sources[0]}{f' and {len(sources) - 1} more' if len(sources) > 1 else ''}: {text}"
        for text, sources in pictures.items()
    ]


def _tell_lines(lines: list[str], result: PreprocessResult) -> None:
    for line in lines[:_MAX_TOLD]:
        say(line)
    if len(lines) > _MAX_TOLD:
        say(f"and {len(lines) - _MAX_TOLD} more{f', in {result.record}' if result.record else ''}")


def _tell_passed_over(result: PreprocessResult) -> None:
    if result.passed_over:
        say(f"Passed over, since these are no pictures by their ending: {', '.join(result.passed_over)}")


def _count(result: PreprocessResult) -> str:
    parts = {
        "made": result.made,
        "unchanged": result.unchanged,
        "left out as duplicates": result.duplicates,
        "failed": result.failed,
    }
    counted = ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "none"
    return f"Of {result.total} picture{'' if result.total == 1 else 's'}: {counted}; {result.files} prepared"
