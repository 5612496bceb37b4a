"""Routes of the service itself: who it is, its whole state, its end."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import reply, service_of
from daemon.api.routes import Endpoint
from daemon.protocol.service import FoldersView, ServerInfo, State


async def show_info(request: Request) -> Response:
    """Tell who answers: versions, workspace, what it can do."""
    return reply(service_of(request).info())


async def show_state(request: Request) -> Response:
    """Tell everything a screen shows, as of one event; follow it with `GET /v1/events`."""
    return Response(service_of(request).state_json(), media_type="application/json")


async def rescan(request: Request) -> Response:
    """Look through all watched folders now; for when something changed there that the system told nobody of."""
    service = service_of(request)
    service.look_soon()
    return reply(FoldersView(folders=service.folder_health()))


async def shut_down(request: Request) -> Response:
    """Stop the service; the current run is checkpointed first and goes on with the next service."""
    service = service_of(request)
    service.stop_asked.set()
    return reply(service.info())


routes = [
    Endpoint("GET", "/v1/", show_info, ServerInfo),
    Endpoint("GET", "/v1/state", show_state, State),
    Endpoint("POST", "/v1/rescan", rescan, FoldersView, status=202),
    Endpoint("POST", "/v1/shutdown", shut_down, ServerInfo, status=202),
]
