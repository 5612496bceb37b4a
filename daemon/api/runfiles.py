"""Routes of the files of a run. A file is sent piece by piece as it is read, so that none has to fit into memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daemon.api.bodies import reply, service_of
from daemon.api.routes import Endpoint
from daemon.protocol.runs import RunFiles
from daemon.runfiles import list_files, open_file

MAX_BYTES = 1 << 30
"""Of a longer file the beginning is sent."""
CHUNK = 1 << 18
TYPES = {
    ".png": "image/png",
    **dict.fromkeys((".jpg", ".jpeg"), "image/jpeg"),
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".toml": "application/toml",
}
ANY = "application/octet-stream"


class FileReply(Response):
    """The bytes of a file, as many as it had when it was opened.

    It is opened and closed in one call: a client that goes away between handler and response would leave it open.
    """

    def __init__(self, name: str, open_it: Callable[[], int]) -> None:
        """`open_it` gives the descriptor; called in a thread."""
        self._name = name
        self._open = open_it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = await asyncio.to_thread(self._open)
        try:
            left = min(os.fstat(handle).st_size, MAX_BYTES)
            kind = TYPES.get(PurePath(self._name).suffix.lower(), ANY)
            headers = {"content-length": str(left), "content-type": kind, "x-content-type-options": "nosniff"}
            encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": encoded})
            while left > 0:
                data = await asyncio.to_thread(os.read, handle, min(CHUNK, left))
                if not data:
                    break  # it was cut short meanwhile; the server breaks the connection off
                left -= len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            os.close(handle)


async def show_files(request: Request) -> Response:
    """List the files of a run: previews, copies of the word, carriers, loss table, log, recipe; oldest first."""
    run = service_of(request).ledger.runs.find(request.path_params["run"])
    return reply(RunFiles(id=run.id, files=await asyncio.to_thread(list_files, Path(run.view.folder))))


async def send_file(request: Request) -> Response:
    """Send one of these files; `name` is as the list has it, such as `images/fox-100.png`."""
    run = service_of(request).ledger.runs.find(request.path_params["run"])
    name = request.path_params["name"]
    return FileReply(name, partial(open_file, Path(run.view.folder), name))


FINDING = ("run.ambiguous", "run.unknown")

routes = [
    Endpoint("GET", "/v1/runs/{run}/files", show_files, RunFiles, codes=FINDING),
    Endpoint(
        "GET",
        "/v1/runs/{run}/files/{name:path}",
        send_file,
        ANY,
        codes=(*FINDING, "file.absent", "file.kind", "file.unreadable"),
    ),
]
