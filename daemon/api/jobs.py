"""Routes of jobs: pictures, evaluations and prepared folders asked for, waited for, cancelled."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import query_number, read_body, read_key, reply, service_of
from daemon.api.routes import Endpoint, Parameter
from daemon.jobs import wait_for_end
from daemon.protocol.jobs import EvaluateRequest, GenerateRequest, JobView
from daemon.protocol.preprocess import PreprocessJob

MAX_WAIT_S = 60.0


async def generate(request: Request) -> Response:
    """Have pictures made."""
    body = await read_body(request, GenerateRequest)
    return reply(await service_of(request).generate(body))


async def evaluate(request: Request) -> Response:
    """Have the deterministic loss on held-out pictures measured."""
    body = await read_body(request, EvaluateRequest)
    return reply(await service_of(request).evaluate(body))


async def preprocess(request: Request) -> Response:
    """Have a folder of pictures prepared for training, beside whatever else goes on."""
    key = read_key(request)
    body = await read_body(request, PreprocessJob)
    return reply(await service_of(request).preprocess(body, key=key))


async def show_job(request: Request) -> Response:
    """Tell how a job stands, or wait for its end."""
    wait_s = query_number(request, "wait", 0, low=0, high=MAX_WAIT_S)
    job = service_of(request).queue.jobs.get(request.path_params["job"])
    return reply(await wait_for_end(job, wait_s))


async def cancel_job(request: Request) -> Response:
    """End a job; one that ended stays as it is."""
    return reply(service_of(request).cancel_job(request.path_params["job"]))


WAIT = Parameter("wait", f"Seconds to wait for its end, 0 to {MAX_WAIT_S:g}; 0 without it.")
ADDING = ("model.unknown", "model.unreadable", "queue.full", "queue.paused", "service.stopping")
"""Codes of every route that gives the worker a job."""

PREPARING = (
    *("caption.extra", "caption.missing", "caption.unreadable", "dataset.empty", "dataset.missing"),
    *("dataset.unreadable", "preprocess.destination", "preprocess.same", "queue.full", "request.key_reused"),
    "service.stopping",
)

routes = [
    Endpoint("POST", "/v1/generate", generate, JobView, status=202, body=GenerateRequest, codes=ADDING),
    Endpoint("POST", "/v1/evaluate", evaluate, JobView, status=202, body=EvaluateRequest, codes=ADDING),
    Endpoint(
        "POST",
        "/v1/preprocess",
        preprocess,
        JobView,
        status=202,
        body=PreprocessJob,
        headers=(Parameter("Idempotency-Key", "The same key and body give the same job."),),
        codes=PREPARING,
    ),
    Endpoint("GET", "/v1/jobs/{job}", show_job, JobView, query=(WAIT,), codes=("job.unknown",)),
    Endpoint("POST", "/v1/jobs/{job}/cancel", cancel_job, JobView, codes=("job.unknown",)),
]
