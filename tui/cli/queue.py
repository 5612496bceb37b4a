"""`queue`, `queue resume`, `move`: the order in which runs get to the worker, and whether they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import VocableError
from tui.cli.output import print_json, print_table, say
from tui.cli.session import AsJson, Reference, ask, session_of

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.protocol.runs import MoveRun, RunView
    from daemon.protocol.service import QueueView

app = typer.Typer(help="Show the queue and whether it moves, or let it go on.", invoke_without_command=True)


@app.callback()
def show_queue(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the runs that wait, the next one first, and whether the queue moves."""
    if ctx.invoked_subcommand:
        return
    queue, waiting = ask(ctx, _read_queue)
    if as_json:
        print_json(queue)
        return
    _tell_state(ctx, queue)
    if waiting:
        rows = [(str(place), run.id, run.name, f"{run.step}/{run.steps}") for place, run in enumerate(waiting, 1)]
        print_table(("PLACE", "ID", "NAME", "STEP"), rows)
    elif queue.state == "running":
        say("No run waits.")


@app.command("resume")
def resume_queue(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Let a queue go on that was paused because worker after worker was lost."""
    queue = ask(ctx, lambda client: client.resume_queue())
    if as_json:
        print_json(queue)
    elif queue.state == "running":
        say("The queue runs.")
    else:
        _tell_state(ctx, queue)


def move(
    ctx: typer.Context,
    reference: Reference,
    first: Annotated[bool, typer.Option("--first", help="To the head of the queue.")] = False,
    last: Annotated[bool, typer.Option("--last", help="To its end.")] = False,
    before: Annotated[str | None, typer.Option("--before", metavar="ID", help="Right before this queued run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a queued run elsewhere in the queue."""
    request = _read_place(first, last, before)

    async def put(client: Client) -> tuple[RunView, QueueView]:
        return await client.move(reference, request), await client.queue()

    run, queue = ask(ctx, put)
    if as_json:
        print_json(run)
    elif run.id in queue.order:
        say(f"{run.name} ({run.id}) is number {queue.order.index(run.id) + 1} of {len(queue.order)} in the queue.")
    else:
        say(f"{run.name} ({run.id}) went to the worker.")


async def _read_queue(client: Client) -> tuple[QueueView, list[RunView]]:
    queue, runs = await client.queue(), {run.id: run for run in await client.runs()}
    return queue, [runs[run] for run in queue.order if run in runs]


def _tell_state(ctx: typer.Context, queue: QueueView) -> None:
    if queue.state != "running":
        say(queue.reason)
    if queue.state == "paused":
        say(f"Let it go on with: {session_of(ctx).command('queue', 'resume')}")


def _read_place(first: bool, last: bool, before: str | None) -> MoveRun:
    """The one place that was given. Raises VocableError `usage.arguments`."""
    from daemon.protocol.runs import MoveRun

    if first + last + (before is not None) != 1:
        raise VocableError("usage.arguments", "Give one place: --first, --last or --before ID.", "See: vocable move -h")
    if before is not None:
        return MoveRun(before=before)
    return MoveRun(place="first" if first else "last")
