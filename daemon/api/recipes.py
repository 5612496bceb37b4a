"""Routes of recipes that are not (yet) runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.api.bodies import read_body, reply, service_of
from daemon.protocol.runs import CreateRun


async def check_recipe(request: Request) -> Response:
    body = await read_body(request, CreateRun)
    return reply(await service_of(request).check_recipe(body.recipe))


routes = [Route("/v1/recipes/check", check_recipe, methods=["POST"])]
