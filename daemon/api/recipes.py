"""Routes of recipes that are not (yet) runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import read_body, reply, service_of
from daemon.api.routes import Endpoint
from daemon.protocol.runs import CreateRun, RecipeCheck


async def check_recipe(request: Request) -> Response:
    """Check a recipe down to the disk and tell what a run of it would use; nothing is started."""
    body = await read_body(request, CreateRun)
    return reply(await service_of(request).check_recipe(body.recipe))


routes = [
    Endpoint("POST", "/v1/recipes/check", check_recipe, RecipeCheck, body=CreateRun, codes=("recipe.invalid",)),
]
