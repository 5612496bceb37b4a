"""Following a run over the event stream until it ends, across losses of the service.

Used by `train`, `follow` and `demo`. The service's views are the truth; what is told is the difference of two views.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from daemon.protocol.runs import RunView
from daemon.protocol.states import ENDED
from engine.errors import VocableError
from tui.cli.output import DONE, FAILED, say
from tui.cli.progress import Progress, format_duration
from tui.cli.session import connect

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.paths import Workspace

_MOST_RESTARTS = 3
_RETRY_S = 0.5


async def follow_run(workspace: Workspace, run_id: str, progress: Progress) -> RunView:
    """Tell what happens to a run until it is finished, stopped or failed, and return its last view.

    A service that dies under the run is started again; the run then goes on by itself. A paused run is waited for.

    Raises:
        VocableError: `service.stopped` when somebody stops the service, or what the client raises.
    """
    seen: RunView | None = None
    for restart in range(_MOST_RESTARTS + 1):
        try:
            async with connect(workspace) as client:
                async for view in watch_run(client, run_id):
                    tell_changes(seen, view, progress)
                    seen = view
                assert seen is not None
                return seen
        except VocableError as error:
            if error.code not in ("link.lost", "link.absent") or restart == _MOST_RESTARTS:
                raise
            progress.say("The service was lost; looking for it, or starting it again.")
    raise AssertionError("unreachable")


async def watch_run(client: Client, run_id: str) -> AsyncIterator[RunView]:
    """Yield the run's view now and after each change; ends after a view in which the run has ended.

    Raises:
        VocableError: `service.stopped` when the service says goodbye.
    """
    while True:
        state = await client.state()
        run = next((run for run in state.runs if run.id == run_id), None) or await client.run(run_id)
        yield run
        if run.state in ENDED:
            return
        async for line in client.events(f"{state.boot_id}:{state.seq}"):
            if line.type == "bye":
                raise _service_stopped(run)
            if line.type in ("reset", "lagged"):
                break
            if line.topic in ("run", "progress") and line.data.get("id") == run_id:
                run = RunView.model_validate(line.data)
                yield run
                if run.state in ENDED:
                    return
        await asyncio.sleep(_RETRY_S)


def tell_changes(before: RunView | None, now: RunView, progress: Progress) -> None:
    """Say what is new in `now`, and move the bar."""
    for sentence in changes(before, now):
        progress.say(sentence)
    if now.state == "running":
        units = f" {now.phase_done}/{now.phase_total}" if now.phase_total else ""
        detail = describe_speed(now) if now.phase == "training" else f"{now.phase}{units}"
        progress.update(f"training {now.name}", now.step, now.steps, detail)


def changes(before: RunView | None, now: RunView) -> list[str]:
    """Sentences about everything that differs and is worth a line of its own."""
    told = []
    if before is None or before.state != now.state:
        told += _tell_state(now)
    if now.restarts > (before.restarts if before else 0):
        told.append(f"The worker was lost; {now.name} goes on from its newest checkpoint.")
    if before is not None and now.preview and now.preview_step != before.preview_step:
        told.append(f"preview at step {now.preview_step}: {now.preview}")
    if before is not None and now.dataset_change != before.dataset_change:
        told.append(f"dataset: {now.dataset_change}")
    for warning in now.warnings[len(before.warnings) if before else 0 :]:
        told.append(f"warning: {warning.title}{' ' if warning.hint else ''}{warning.hint}")
    return told


def describe_speed(run: RunView) -> str:
    """Loss, rate and time left, as far as they are known."""
    loss = "" if run.mean_loss is None else f"loss {run.mean_loss:.4f}"
    return ", ".join(filter(None, (loss, describe_pace(run))))


def describe_pace(run: RunView) -> str:
    """Rate and time left, as far as they are known."""
    parts = []
    if run.steps_per_second:
        parts.append(f"{run.steps_per_second:.1f} steps/s")
    if run.seconds_left is not None:
        parts.append(f"{format_duration(run.seconds_left)} left")
    return ", ".join(parts)


def report_end(run: RunView, command: Callable[..., str]) -> int:
    """Tell how a run ended, with what to do next, and return the exit code. `command` makes a line to paste."""
    if run.state == "failed":
        error = run.error
        say(f"error: {error.title if error else 'The run failed.'}")
        if error and error.hint:
            say(f"hint: {error.hint}")
        say(f"{run.name} failed at step {run.step} of {run.steps}; to try again from its newest checkpoint:")
        say(f"  {command('resume', run.id)}")
        return FAILED
    took = f" in {format_duration(run.ended_at - run.started_at)}" if run.ended_at and run.started_at else ""
    loss = f", mean loss {run.mean_loss:.4f}" if run.mean_loss is not None else ""
    say(f"{run.name} {run.state} after {run.step} of {run.steps} steps{took}{loss}.")
    if run.embedding:
        prompt = f"portrait <hypernet:{run.name}>" if run.kind == "hypernetwork" else f"portrait of {run.name}"
        say(f"  {command('generate', prompt)}")
    return DONE


def _tell_state(run: RunView) -> list[str]:
    if run.state == "queued":
        return [f"{run.name} ({run.id}) is queued."]
    if run.state == "running":
        return [f"{run.name} ({run.id}) is running: {run.folder}"]
    if run.state == "paused" and run.error:
        return [f"{run.name} waits at step {run.step} of {run.steps}: {run.error.title} It goes on when that is over."]
    if run.state == "paused":
        return [f"{run.name} is paused at step {run.step} of {run.steps}; vocable resume {run.id} lets it go on."]
    return []


def _service_stopped(run: RunView) -> VocableError:
    return VocableError(
        "service.stopped",
        f"The service was stopped; {run.name} is at step {run.step} of {run.steps} and loses nothing.",
        f"It goes on with: vocable follow {run.id}.",
    )
