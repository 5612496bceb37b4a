"""The application: all routes, and what holds for every request before a route sees it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.api.bodies import MAX_BODY
from daemon.api.errors import answer_error, answer_http_error, answer_surprise, encode_error
from daemon.api.routes import to_route
from daemon.api.table import ENDPOINTS
from daemon.service import Service
from engine.errors import VocableError

HOSTS = frozenset({"vocable", "localhost", ""})
"""What our client, and curl with a socket, call the service."""


class Guard:
    """Refuses what a web browser could be made to send, and bodies that announce too much.

    Pure ASGI: a middleware that wraps responses would hold streams back.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = _find_fault(Headers(scope=scope)) if scope["type"] == "http" else None
        if fault:
            status, body = encode_error(fault)
            response = Response(body, status, {"connection": "close"}, "application/json")
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def build_app(service: Service) -> Starlette:
    app = Starlette(
        routes=[to_route(endpoint) for endpoint in ENDPOINTS],
        middleware=[Middleware(Guard)],
        exception_handlers={
            VocableError: answer_error,
            HTTPException: answer_http_error,
            Exception: answer_surprise,
        },
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _find_fault(headers: Headers) -> VocableError | None:
    host = headers.get("host", "").partition(":")[0]
    if "origin" in headers or "referer" in headers or host not in HOSTS:
        return VocableError(
            "request.foreign",
            "The service answers no web pages.",
            "Send no Origin or Referer, and the host 'localhost'.",
        )
    length = headers.get("content-length", "0")
    if len(length) > 12 or not length.isdigit() or int(length) > MAX_BODY:
        return VocableError("request.too_large", f"The body is longer than {MAX_BODY} bytes.", "Send less.")
    return None
