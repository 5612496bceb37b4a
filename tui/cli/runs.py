"""`runs`, `show`, `follow`, `pause`, `resume`, `stop`, `delete`, `restore`: the queue and the history."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.recipe import foreign_options
from tui.cli.output import print_json, print_table, print_text, say
from tui.cli.session import AsJson, Reference, Session, ask, run_waiting, session_of

if TYPE_CHECKING:
    from daemon.protocol.runs import RunDetail, RunView
    from daemon.protocol.states import RunCommand

_SHOWN = 20


def list_runs(
    ctx: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help=f"Show all ended runs, not only the newest {_SHOWN}.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the queue, then the runs that have ended, newest first. With --json all of them."""
    runs = ask(ctx, lambda client: client.runs())
    if as_json:
        print_json(runs)
        return
    if not runs:
        say(f"There are no runs yet. Start one with: {session_of(ctx).command('train', '--help')}")
        return
    shown = runs if everything else _newest(runs)
    print_table(("ID", "NAME", "STATE", "STEP", "LOSS", "LEFT", "CREATED"), [_row(run) for run in shown])
    if len(shown) < len(runs):
        say(f"{len(runs) - len(shown)} older runs: {session_of(ctx).command('runs', '--all')}")


def show_run(ctx: typer.Context, reference: Reference, as_json: AsJson = False) -> None:
    """Show everything about one run: state, files, error, recipe."""
    run = ask(ctx, lambda client: client.run(reference))
    if as_json:
        print_json(run)
        return
    facts = [(label, value) for label, value in _facts(run) if value]
    width = max(len(label) for label, _ in facts) + 2
    for label, value in facts:
        print_text(f"{label:<{width}}{value}")
    print_text("recipe")
    foreign = {f"start.{name}" for name in foreign_options(run.kind)}
    for path, value in _flatten(run.recipe):
        if path not in foreign:
            print_text(f"  {path}={value}")


def follow(ctx: typer.Context, reference: Reference, as_json: AsJson = False) -> None:
    """Follow a run until it ends. Ctrl-C leaves it running."""
    run = ask(ctx, lambda client: client.run(reference))
    raise typer.Exit(follow_to_end(session_of(ctx), run, as_json=as_json))


def follow_to_end(session: Session, run: RunView, *, as_json: bool) -> int:
    """Follow a run with progress, print what it made, and return the exit code.

    Raises:
        typer.Exit: 130 after Ctrl-C; the run goes on.
    """
    from tui.cli.follow import follow_run, report_end
    from tui.cli.progress import open_progress

    async def work() -> RunView:
        with open_progress() as progress:
            return await follow_run(session.workspace, run.id, progress)

    ended = run_waiting(work, interrupted=lambda: f"The run goes on; {session.command('follow', run.id)}")
    if as_json:
        print_json(ended)
    elif ended.embedding:
        print_text(ended.embedding)
    return report_end(ended, session.command)


def pause(ctx: typer.Context, reference: Reference, as_json: AsJson = False) -> None:
    """Pause a run: it keeps a checkpoint and leaves the device to the next run."""
    _command(ctx, reference, "pause", as_json)


def resume(ctx: typer.Context, reference: Reference, as_json: AsJson = False) -> None:
    """Let a paused, stopped or failed run go on from its newest checkpoint."""
    _command(ctx, reference, "resume", as_json)


def stop(ctx: typer.Context, reference: Reference, as_json: AsJson = False) -> None:
    """End a run now and save its word as it is."""
    _command(ctx, reference, "stop", as_json)


def delete(ctx: typer.Context, reference: Reference, as_json: AsJson = False) -> None:
    """Move a run that ended to trash/, with its folder. Its word stays."""
    run = ask(ctx, lambda client: client.delete_run(reference))
    if as_json:
        print_json(run)
    else:
        say(f"{run.name} ({run.id}) is in {run.folder} now. Undo: {session_of(ctx).command('restore', run.id)}")


def restore(ctx: typer.Context, reference: Reference, as_json: AsJson = False) -> None:
    """Take a deleted run back out of trash/."""
    run = ask(ctx, lambda client: client.restore_run(reference))
    if as_json:
        print_json(run)
    else:
        say(f"{run.name} ({run.id}) is back in {run.folder}.")


def _command(ctx: typer.Context, reference: str, command: RunCommand, as_json: bool) -> None:
    run = ask(ctx, lambda client: client.command(reference, command))
    if as_json:
        print_json(run)
    elif run.asked:
        say(f"{run.name} ({run.id}) is told to {run.asked}; it follows after its present step.")
    else:
        say(f"{run.name} ({run.id}) is {run.state} at step {run.step} of {run.steps}.")


def _newest(runs: list[RunView]) -> list[RunView]:
    from daemon.protocol.states import ENDED

    waiting = [run for run in runs if run.state not in ENDED]
    return waiting + [run for run in runs if run.state in ENDED][:_SHOWN]


def _row(run: RunView) -> tuple[str, ...]:
    from tui.cli.progress import format_duration

    state = f"{run.state}, {run.asked} asked" if run.asked else run.state
    loss = "" if run.mean_loss is None else f"{run.mean_loss:.4f}"
    left = format_duration(run.seconds_left) if run.state == "running" and run.seconds_left is not None else ""
    return (run.id, run.name, state, f"{run.step}/{run.steps}", loss, left, _local_time(run.created_at))


def _facts(run: RunDetail) -> list[tuple[str, str]]:
    from tui.cli.follow import describe_pace

    error = run.error
    return [
        ("id", run.id),
        ("name", run.name),
        ("state", f"{run.state}, {run.phase}" if run.phase else run.state),
        ("step", f"{run.step} of {run.steps}"),
        ("speed", describe_pace(run) if run.state == "running" else ""),
        ("loss", "" if run.mean_loss is None else f"{run.mean_loss:.4f} (mean)"),
        ("model", run.model),
        ("created", _local_time(run.created_at)),
        ("started", _local_time(run.started_at)),
        ("ended", _local_time(run.ended_at)),
        ("restarts", str(run.restarts) if run.restarts else ""),
        ("folder", run.folder),
        (run.kind, run.embedding),
        *(("preview", path) for path in run.previews),
        *(("warning", f"{warning.title} {warning.hint}".strip()) for warning in run.warnings),
        ("error", error.title if error else ""),
        ("hint", error.hint if error else ""),
    ]


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`(group.key, value)` of every field that has one, as `train --set` takes them."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows


def _local_time(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
