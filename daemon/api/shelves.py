"""Routes of one thing in a watched folder, alike for words and hypernetworks: shown, renamed, deleted, taken back."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import read_body, reply, service_of
from daemon.api.routes import Endpoint, Handler
from daemon.protocol.words import Rename
from daemon.shelves import Noun

WRITING = ("disk.full", "disk.write")


def shelf_routes(path: str, noun: Noun, view: type[BaseModel]) -> list[Endpoint]:
    """The routes of what has a name.

    Args:
        path: of the whole folder, such as `/v1/embeddings`.
        view: the model of the replies.
    """
    several = ("embedding.several",) if noun == "embedding" else ()
    one, finding = f"{path}/{{name}}", (*WRITING, *several, f"{noun}.unknown")
    renaming = (*finding, f"{noun}.exists", f"{noun}.name")
    restoring = (*WRITING, "file.absent", f"{noun}.exists", f"{noun}.unknown")
    return [
        Endpoint("GET", one, _show(noun, view), view, codes=(f"{noun}.unknown",)),
        Endpoint("DELETE", one, _delete(noun, view), view, codes=finding),
        Endpoint("POST", f"{one}/restore", _restore(noun, view), view, codes=restoring),
        Endpoint("POST", f"{one}/rename", _rename(noun, view), view, body=Rename, codes=renaming),
    ]


def _show(noun: Noun, view: type[BaseModel]) -> Handler:
    async def show(request: Request) -> Response:
        """Tell about the one that has a name."""
        return reply(view(**service_of(request).shelves.show(noun, request.path_params["name"])))

    return show


def _delete(noun: Noun, view: type[BaseModel]) -> Handler:
    async def delete(request: Request) -> Response:
        """Move the file to trash/; of several that claim the name, the one that has it."""
        return reply(view(**await service_of(request).shelves.delete(noun, request.path_params["name"])))

    return delete


def _restore(noun: Noun, view: type[BaseModel]) -> Handler:
    async def restore(request: Request) -> Response:
        """Take the file of this name that was deleted or replaced last back out of trash/."""
        return reply(view(**await service_of(request).shelves.restore(noun, request.path_params["name"])))

    return restore


def _rename(noun: Noun, view: type[BaseModel]) -> Handler:
    async def rename(request: Request) -> Response:
        """Give the file another name, in its place."""
        body = await read_body(request, Rename)
        return reply(view(**await service_of(request).shelves.rename(noun, request.path_params["name"], body.name)))

    return rename
