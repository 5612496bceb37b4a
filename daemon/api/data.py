"""Routes of what recipes can name for their data: templates and datasets."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import read_body, reply, service_of
from daemon.api.routes import Endpoint
from daemon.api.runfiles import ANY, FileReply
from daemon.captions import open_picture
from daemon.protocol.data import (
    CaptionsReply,
    ChangeCaptions,
    DatasetDetail,
    DatasetList,
    TemplateDetail,
    TemplateList,
)


async def show_templates(request: Request) -> Response:
    """List the prompt templates, those that come with the program among them."""
    return reply(TemplateList(templates=await service_of(request).data.templates()))


async def show_datasets(request: Request) -> Response:
    """List the datasets with their counts of pictures and captions."""
    return reply(DatasetList(datasets=await service_of(request).data.datasets()))


async def show_template(request: Request) -> Response:
    """Show the prompts of a template."""
    return reply(await service_of(request).data.template(request.path_params["name"]))


async def show_dataset(request: Request) -> Response:
    """Show the pictures of a dataset with their captions."""
    return reply(await service_of(request).data.dataset(request.path_params["name"]))


async def send_picture(request: Request) -> Response:
    """Send a picture of a dataset."""
    name, picture = request.path_params["name"], request.path_params["picture"]
    return FileReply(picture, partial(open_picture, name, picture, service_of(request).data.dataset_folders))


async def change_captions(request: Request) -> Response:
    """Write captions beside pictures, or remove them; the reply says how to undo it."""
    body = await read_body(request, ChangeCaptions)
    return reply(await service_of(request).data.change_captions(request.path_params["name"], body.changes))


routes = [
    Endpoint("GET", "/v1/templates", show_templates, TemplateList),
    Endpoint("GET", "/v1/templates/{name}", show_template, TemplateDetail, codes=("template.unknown",)),
    Endpoint("GET", "/v1/datasets", show_datasets, DatasetList),
    Endpoint(
        "GET", "/v1/datasets/{name}", show_dataset, DatasetDetail, codes=("dataset.missing", "dataset.unreadable")
    ),
    Endpoint(
        "GET",
        "/v1/datasets/{name}/files/{picture}",
        send_picture,
        ANY,
        codes=("dataset.missing", "file.absent", "file.kind", "file.unreadable"),
    ),
    Endpoint(
        "PUT",
        "/v1/datasets/{name}/captions",
        change_captions,
        CaptionsReply,
        body=ChangeCaptions,
        codes=("caption.changed", "dataset.caption", "dataset.missing", "disk.full", "disk.write", "file.absent"),
    ),
]
