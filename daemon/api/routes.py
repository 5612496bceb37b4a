"""What a route is: how it is reached, what it takes, what it answers. The app and `docs/api.md` are made from it.

Every file of routes declares its own as `routes: list[Endpoint]`. The invariant: a route answers with the codes that it
declares and with those of COMMON, which the layers before it send; any other is noted in the log, and tests fail on it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import VocableError

COMMON = (
    *("request.foreign", "request.invalid", "request.method", "request.peer", "request.slow", "request.too_large"),
    *("request.unknown", "service.busy", "internal"),
)
"""What any request may be answered with before, or whatever, its route does."""

BODY = ("request.fields",)
"""What every route that takes a body may answer, beside COMMON."""

Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query string or a header."""

    name: str
    about: str


@dataclass(frozen=True)
class Endpoint:
    """One method of one path; the first line of the handler's docstring says what it does."""

    method: str
    path: str
    handler: Handler
    reply: type[BaseModel] | str
    """The model of the reply, or the media type of one that is no JSON object."""
    status: int = 200
    body: type[BaseModel] | None = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    codes: tuple[str, ...] = ()
    """Error codes beside those of COMMON and, for one with a body, BODY."""

    @property
    def possible(self) -> frozenset[str]:
        """Every code that it may answer with."""
        return frozenset((*COMMON, *(BODY if self.body else ()), *self.codes))


def to_route(endpoint: Endpoint) -> Route:
    async def answer(request: Request) -> Response:
        try:
            response = await endpoint.handler(request)
        except VocableError as error:
            if error.code not in endpoint.possible:
                _log.warning("%s %s answers with the undeclared %s", endpoint.method, endpoint.path, error.code)
            raise
        response.status_code = endpoint.status
        return response

    return Route(endpoint.path, answer, methods=[endpoint.method])
