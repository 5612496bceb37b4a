"""Routes of runs and their queue: create, list, show, command, move, losses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import MAX_KEY, query_number, read_body, read_key, reply, service_of
from daemon.api.routes import Endpoint, Parameter
from daemon.protocol.runs import CreateRun, LossSeries, MoveRun, RunDetail, RunList, RunView
from daemon.protocol.service import QueueView
from daemon.protocol.states import RunCommand

MAX_POINTS = 2000


async def create_run(request: Request) -> Response:
    """Check a recipe and queue a run of it."""
    key = read_key(request)
    body = await read_body(request, CreateRun)
    run = await service_of(request).create_run(body.recipe, key=key)
    return reply(run.shown)


async def list_runs(request: Request) -> Response:
    """List the running one, the queue, paused ones, then ended ones, newest first."""
    return reply(RunList(runs=service_of(request).ledger.runs.ordered()))


async def show_run(request: Request) -> Response:
    """Tell everything about one run, its recipe and previews among it."""
    ledger = service_of(request).ledger
    run = ledger.runs.find(request.path_params["run"])
    previews = await ledger.history.previews(run.id)
    return reply(RunDetail(**run.shown.model_dump(), recipe=run.recipe, previews=previews))


async def pause_run(request: Request) -> Response:
    """Have a run checkpointed and leave the worker to the next one."""
    return await _command(request, "pause")


async def resume_run(request: Request) -> Response:
    """Let a paused, stopped or failed run go on from its newest checkpoint."""
    return await _command(request, "resume")


async def stop_run(request: Request) -> Response:
    """End a run now and save its word as it is."""
    return await _command(request, "stop")


async def delete_run(request: Request) -> Response:
    """Move a run that ended, with its folder, to trash/; its word stays in the embeddings folder."""
    run = await service_of(request).queue.removal.remove(request.path_params["run"])
    return reply(run.shown)


async def restore_run(request: Request) -> Response:
    """Take a deleted run back out of trash/."""
    run = await service_of(request).queue.removal.restore(request.path_params["run"])
    return reply(run.shown)


async def move_run(request: Request) -> Response:
    """Put a queued run elsewhere in the queue."""
    body = await read_body(request, MoveRun)
    run = await service_of(request).queue.commands.move(request.path_params["run"], body)
    return reply(run.shown)


async def show_queue(request: Request) -> Response:
    """Tell the order of the queue, and whether it moves."""
    return reply(service_of(request).queue.view())


async def resume_queue(request: Request) -> Response:
    """Let a queue go on that was paused after too many lost workers."""
    return reply(service_of(request).queue.resume())


async def show_losses(request: Request) -> Response:
    """Tell the losses of all steps so far, in buckets of consecutive steps."""
    points = int(query_number(request, "points", 200, low=1, high=MAX_POINTS))
    ledger = service_of(request).ledger
    run = ledger.runs.find(request.path_params["run"])
    return reply(LossSeries(id=run.id, points=await ledger.losses(run, points)))


async def _command(request: Request, command: RunCommand) -> Response:
    run = await service_of(request).queue.commands.carry_out(command, request.path_params["run"])
    return reply(run.shown)


POINTS = Parameter("points", f"At most so many buckets, 1 to {MAX_POINTS}; 200 without it.")
KEY = Parameter(
    "Idempotency-Key",
    f"At most {MAX_KEY} characters. A request that is repeated with the same key and recipe within a week makes no "
    "second run.",
)
FINDING = ("run.ambiguous", "run.unknown")
"""Codes of every route that names a run: by id, unique beginning of an id, or name (then the newest of that name)."""
READING = (*FINDING, "history.failed")
CHANGING = (*FINDING, "run.state", "service.degraded", "service.stopping")
REMOVING = ("disk.full", "disk.write", *READING, "service.degraded", "service.stopping")
CREATING = (
    *("disk.full", "disk.write", "history.failed", "recipe.invalid", "request.key_reused", "run.name_taken"),
    *("service.degraded", "service.stopping"),
)

routes = [
    Endpoint("GET", "/v1/runs", list_runs, RunList),
    Endpoint("POST", "/v1/runs", create_run, RunView, status=201, body=CreateRun, headers=(KEY,), codes=CREATING),
    Endpoint("GET", "/v1/runs/{run}", show_run, RunDetail, codes=READING),
    Endpoint("GET", "/v1/runs/{run}/losses", show_losses, LossSeries, query=(POINTS,), codes=READING),
    Endpoint("POST", "/v1/runs/{run}/pause", pause_run, RunView, codes=CHANGING),
    Endpoint("POST", "/v1/runs/{run}/resume", resume_run, RunView, codes=(*CHANGING, "run.name_taken")),
    Endpoint("POST", "/v1/runs/{run}/stop", stop_run, RunView, codes=CHANGING),
    Endpoint("POST", "/v1/runs/{run}/move", move_run, RunView, body=MoveRun, codes=CHANGING),
    Endpoint("DELETE", "/v1/runs/{run}", delete_run, RunView, codes=(*REMOVING, "run.state")),
    Endpoint("POST", "/v1/runs/{run}/restore", restore_run, RunView, codes=(*REMOVING, "file.absent")),
    Endpoint("GET", "/v1/queue", show_queue, QueueView),
    Endpoint("POST", "/v1/queue/resume", resume_queue, QueueView, codes=("service.stopping",)),
]
