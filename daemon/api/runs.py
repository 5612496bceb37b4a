"""Routes of runs and their queue: create, list, show, command, move, losses."""

from __future__ import annotations

from typing import cast, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.api.bodies import query_number, read_body, reply, service_of
from daemon.protocol.runs import CreateRun, LossSeries, MoveRun, RunDetail, RunList
from daemon.protocol.states import RunCommand
from engine.errors import VocableError

MAX_KEY = 256
MAX_POINTS = 2000


async def create_run(request: Request) -> Response:
    key = request.headers.get("idempotency-key", "")
    if len(key) > MAX_KEY:
        raise VocableError("request.invalid", f"The Idempotency-Key is longer than {MAX_KEY} characters.")
    body = await read_body(request, CreateRun)
    run = await service_of(request).create_run(body.recipe, key=key)
    return reply(run.view, 201)


async def list_runs(request: Request) -> Response:
    return reply(RunList(runs=service_of(request).ledger.runs.ordered()))


async def show_run(request: Request) -> Response:
    ledger = service_of(request).ledger
    run = ledger.runs.find(request.path_params["run"])
    previews = await ledger.history.previews(run.id)
    return reply(RunDetail(**run.view.model_dump(), recipe=run.recipe, previews=previews))


async def command_run(request: Request) -> Response:
    command = cast(RunCommand, request.url.path.rpartition("/")[2])
    run = await service_of(request).queue.commands.carry_out(command, request.path_params["run"])
    return reply(run.view)


async def move_run(request: Request) -> Response:
    body = await read_body(request, MoveRun)
    run = await service_of(request).queue.commands.move(request.path_params["run"], body)
    return reply(run.view)


async def show_queue(request: Request) -> Response:
    return reply(service_of(request).queue.view())


async def resume_queue(request: Request) -> Response:
    return reply(service_of(request).queue.resume())


async def show_losses(request: Request) -> Response:
    points = int(query_number(request, "points", 200, low=1, high=MAX_POINTS))
    ledger = service_of(request).ledger
    run = ledger.runs.find(request.path_params["run"])
    return reply(LossSeries(id=run.id, points=await ledger.losses(run, points)))


routes = [
    Route("/v1/runs", list_runs, methods=["GET"]),
    Route("/v1/runs", create_run, methods=["POST"]),
    Route("/v1/runs/{run}", show_run, methods=["GET"]),
    Route("/v1/runs/{run}/losses", show_losses, methods=["GET"]),
    Route("/v1/runs/{run}/move", move_run, methods=["POST"]),
    Route("/v1/queue", show_queue, methods=["GET"]),
    Route("/v1/queue/resume", resume_queue, methods=["POST"]),
    *(Route(f"/v1/runs/{{run}}/{command}", command_run, methods=["POST"]) for command in get_args(RunCommand)),
]
