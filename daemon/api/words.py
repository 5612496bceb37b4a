"""Routes of what prompts and recipes can name: words and base models, files of words, and prompts themselves."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from daemon.api.bodies import read_body, reply, service_of
from daemon.api.jobs import ADDING
from daemon.api.routes import Endpoint
from daemon.api.shelves import shelf_routes
from daemon.protocol.jobs import CreateEmbedding, JobView
from daemon.protocol.service import ModelList, WordList, WordView
from daemon.protocol.words import (
    ConvertReply,
    ConvertRequest,
    InspectReply,
    InspectRequest,
    ParametersReply,
    ParametersRequest,
    TokensReply,
    TokensRequest,
)


async def list_words(request: Request) -> Response:
    """List every word of the embeddings folder, and every file of it that holds none, with the reason."""
    content = b'{"words":' + service_of(request).shelves.words.table.json + b"}"
    return Response(content, media_type="application/json")


async def create_word(request: Request) -> Response:
    """Have an embedding made that is not trained yet."""
    body = await read_body(request, CreateEmbedding)
    return reply(await service_of(request).create_embedding(body))


async def list_models(request: Request) -> Response:
    """List the base models that recipes and requests can name, the starter first."""
    return reply(ModelList(models=await service_of(request).data.models()))


async def inspect(request: Request) -> Response:
    """Say what files of embeddings and hypernetworks hold; one that cannot be read is told in its own entry."""
    body = await read_body(request, InspectRequest)
    return reply(await service_of(request).shelves.inspect(body))


async def convert(request: Request) -> Response:
    """Write a word or a hypernetwork in another format."""
    body = await read_body(request, ConvertRequest)
    return reply(await service_of(request).shelves.convert(body))


async def count_tokens(request: Request) -> Response:
    """Count what a prompt takes and say which words are found in it."""
    body = await read_body(request, TokensRequest)
    return reply(await service_of(request).shelves.count_tokens(body))


async def read_parameters(request: Request) -> Response:
    """Say how a picture was made, as the request that makes it again."""
    body = await read_body(request, ParametersRequest)
    return reply(await service_of(request).shelves.read_parameters(body))


FINDING = ("model.unknown", "model.unreadable")
OPENING = ("file.absent", "file.busy", "file.kind", "file.size", "file.unreadable", "inspector.lost", "inspector.start")
"""Codes of every route that reads one file through the inspector."""
CONVERTING = (
    *OPENING,
    *("dataset.picture", "disk.full", "disk.verify", "disk.write", "embedding.absent", "embedding.halves"),
    *("embedding.name", "embedding.not_finite", "embedding.several", "embedding.shape"),
    *("embedding.unreadable", "embedding.unsupported", "embedding.verify", "file.exists", "picture.small"),
    *("hypernetwork.not_finite", "hypernetwork.shape", "hypernetwork.unsupported"),
    "hypernetwork.verify",
)

routes = [
    Endpoint("GET", "/v1/embeddings", list_words, WordList),
    Endpoint(
        "POST",
        "/v1/embeddings",
        create_word,
        JobView,
        status=202,
        body=CreateEmbedding,
        codes=(*ADDING, "embedding.exists", "embedding.name"),
    ),
    *shelf_routes("/v1/embeddings", "embedding", WordView),
    Endpoint("POST", "/v1/inspect", inspect, InspectReply, body=InspectRequest, codes=FINDING),
    Endpoint("POST", "/v1/convert", convert, ConvertReply, body=ConvertRequest, codes=CONVERTING),
    Endpoint(
        "POST", "/v1/tokens", count_tokens, TokensReply, body=TokensRequest, codes=(*FINDING, "embedding.too_long")
    ),
    Endpoint(
        "POST",
        "/v1/parameters",
        read_parameters,
        ParametersReply,
        body=ParametersRequest,
        codes=(*OPENING, "embedding.unreadable", "picture.silent"),
    ),
    Endpoint("GET", "/v1/models", list_models, ModelList),
]
