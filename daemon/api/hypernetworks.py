"""Routes of the hypernetworks folder: what it holds, new ones, and those that go to trash/ and come back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import read_body, reply, service_of
from daemon.api.jobs import ADDING
from daemon.api.routes import Endpoint
from daemon.protocol.hypernetworks import CreateHypernetwork, HypernetworkList, HypernetworkView
from daemon.protocol.jobs import JobView


async def list_hypernetworks(request: Request) -> Response:
    """List every hypernetwork of the folder, and every file of it that is none, with the reason."""
    content = b'{"hypernetworks":' + service_of(request).hypernetworks.table.json + b"}"
    return Response(content, media_type="application/json")


async def show_hypernetwork(request: Request) -> Response:
    """Tell about the hypernetwork that has a name."""
    return reply(service_of(request).hypernetwork(request.path_params["name"]))


async def create_hypernetwork(request: Request) -> Response:
    """Have a hypernetwork made that is not trained yet."""
    body = await read_body(request, CreateHypernetwork)
    return reply(await service_of(request).create_hypernetwork(body))


async def delete_hypernetwork(request: Request) -> Response:
    """Move the file of a hypernetwork to trash/; of several that claim the name, the one that has it."""
    return reply(await service_of(request).delete_hypernetwork(request.path_params["name"]))


async def restore_hypernetwork(request: Request) -> Response:
    """Take the hypernetwork of this name that was deleted or replaced last back out of trash/."""
    return reply(await service_of(request).restore_hypernetwork(request.path_params["name"]))


CREATING = (*ADDING, "hypernetwork.exists", "hypernetwork.model", "hypernetwork.name")
WRITING = ("disk.full", "disk.write")
RESTORING = (*WRITING, "file.absent", "hypernetwork.exists", "hypernetwork.unknown")
PATH = "/v1/hypernetworks/{name}"

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
    Endpoint("GET", PATH, show_hypernetwork, HypernetworkView, codes=("hypernetwork.unknown",)),
    Endpoint("DELETE", PATH, delete_hypernetwork, HypernetworkView, codes=(*WRITING, "hypernetwork.unknown")),
    Endpoint("POST", f"{PATH}/restore", restore_hypernetwork, HypernetworkView, codes=RESTORING),
]
