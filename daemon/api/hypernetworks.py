"""Routes of the hypernetworks folder: what it holds, new ones, and those that go to trash/ and come back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import read_body, reply, service_of
from daemon.api.jobs import ADDING
from daemon.api.routes import Endpoint
from daemon.api.shelves import shelf_routes
from daemon.protocol.hypernetworks import CreateHypernetwork, HypernetworkList, HypernetworkView
from daemon.protocol.jobs import JobView


async def list_hypernetworks(request: Request) -> Response:
    """List every hypernetwork of the folder, and every file of it that is none, with the reason."""
    content = b'{"hypernetworks":' + service_of(request).shelves.hypernetworks.table.json + b"}"
    return Response(content, media_type="application/json")


async def create_hypernetwork(request: Request) -> Response:
    """Have a hypernetwork made that is not trained yet."""
    body = await read_body(request, CreateHypernetwork)
    return reply(await service_of(request).create_hypernetwork(body))


CREATING = (*ADDING, "hypernetwork.exists", "hypernetwork.model", "hypernetwork.name")

routes = [
    Endpoint("GET", "/v1/hypernetworks", list_hypernetworks, HypernetworkList),
    Endpoint(
        "POST",
        "/v1/hypernetworks",
        create_hypernetwork,
        JobView,
        status=202,
        body=CreateHypernetwork,
        codes=CREATING,
    ),
    *shelf_routes("/v1/hypernetworks", "hypernetwork", HypernetworkView),
]
