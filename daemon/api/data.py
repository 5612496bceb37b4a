"""Routes of what recipes can name for their data: templates and datasets."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import reply, service_of
from daemon.api.routes import Endpoint
from daemon.protocol.data import DatasetList, TemplateList


async def show_templates(request: Request) -> Response:
    """List the prompt templates, those that come with the program among them."""
    return reply(TemplateList(templates=await service_of(request).templates()))


async def show_datasets(request: Request) -> Response:
    """List the datasets with their counts of pictures and captions."""
    return reply(DatasetList(datasets=await service_of(request).datasets()))


routes = [
    Endpoint("GET", "/v1/templates", show_templates, TemplateList),
    Endpoint("GET", "/v1/datasets", show_datasets, DatasetList),
]
