"""Routes of the service itself: who it is, its whole state, its end."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.api.bodies import reply, service_of


async def show_info(request: Request) -> Response:
    return reply(service_of(request).info())


async def show_state(request: Request) -> Response:
    return Response(service_of(request).state_json(), media_type="application/json")


async def shut_down(request: Request) -> Response:
    service = service_of(request)
    service.stop_asked.set()
    return reply(service.info(), 202)


routes = [
    Route("/v1/", show_info, methods=["GET"]),
    Route("/v1/state", show_state, methods=["GET"]),
    Route("/v1/shutdown", shut_down, methods=["POST"]),
]
