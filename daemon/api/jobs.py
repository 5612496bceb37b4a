"""Routes of jobs: pictures and evaluations asked for, waited for, cancelled."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.api.bodies import query_number, read_body, reply, service_of
from daemon.jobs import wait_for_end
from daemon.protocol.jobs import EvaluateRequest, GenerateRequest

MAX_WAIT_S = 60.0


async def generate(request: Request) -> Response:
    body = await read_body(request, GenerateRequest)
    return reply(await service_of(request).generate(body), 202)


async def evaluate(request: Request) -> Response:
    body = await read_body(request, EvaluateRequest)
    return reply(await service_of(request).evaluate(body), 202)


async def show_job(request: Request) -> Response:
    wait_s = query_number(request, "wait", 0, low=0, high=MAX_WAIT_S)
    job = service_of(request).queue.jobs.get(request.path_params["job"])
    return reply(await wait_for_end(job, wait_s))


async def cancel_job(request: Request) -> Response:
    queue = service_of(request).queue
    return reply(queue.cancel_job(queue.jobs.get(request.path_params["job"])))


routes = [
    Route("/v1/generate", generate, methods=["POST"]),
    Route("/v1/evaluate", evaluate, methods=["POST"]),
    Route("/v1/jobs/{job}", show_job, methods=["GET"]),
    Route("/v1/jobs/{job}/cancel", cancel_job, methods=["POST"]),
]
