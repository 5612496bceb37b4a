"""The route of the event stream. A stream has its place from its first line to its end, however that comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from daemon.api.bodies import service_of
from daemon.api.errors import encode_error
from daemon.api.routes import Endpoint, Parameter
from daemon.events import MAX_STREAMS, Hub
from engine.errors import VocableError

NDJSON = "application/x-ndjson"


class EventStream(Response):
    """The lines after a cursor.

    The place is taken where it is given back, in one call: a client that goes away between handler and response would
    keep it for ever. And it is taken in the same turn of the loop that counts the others, so that no more than
    MAX_STREAMS get one, however many come at once.
    """

    def __init__(self, hub: Hub, after: str) -> None:
        self._hub = hub
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._hub.streams >= MAX_STREAMS:
            title = f"{MAX_STREAMS} clients follow the events already."
            status, body = encode_error(VocableError("service.busy", title, "Close one of them."))
            await Response(body, status, media_type="application/json")(scope, receive, send)
            return
        async with aclosing(cast("AsyncGenerator[bytes, None]", self._hub.lines(self._after))) as lines:
            hello = await anext(lines)
            response = StreamingResponse(_join(hello, lines), media_type=NDJSON)
            await response(scope, receive, send)


async def stream_events(request: Request) -> Response:
    """Follow everything that happens, one JSON object a line."""
    hub = service_of(request).hub
    after = request.query_params.get("after", "")
    if after:
        hub.check_cursor(after)
    return EventStream(hub, after)


async def _join(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for line in rest:
        yield line


AFTER = Parameter("after", "`BOOT_ID:SEQ`: everything after this event; without it, what happens from now on.")

routes = [Endpoint("GET", "/v1/events", stream_events, NDJSON, query=(AFTER,))]
