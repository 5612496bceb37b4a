"""Routes of what prompts and recipes can name: words and base models, files of words, and prompts themselves."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.api.bodies import read_body, reply, service_of
from daemon.protocol.jobs import CreateEmbedding
from daemon.protocol.service import ModelList
from daemon.protocol.words import ConvertRequest, InspectRequest, ParametersRequest, TokensRequest


async def list_words(request: Request) -> Response:
    content = b'{"words":' + service_of(request).library.table.json + b"}"
    return Response(content, media_type="application/json")


async def create_word(request: Request) -> Response:
    body = await read_body(request, CreateEmbedding)
    return reply(await service_of(request).create_embedding(body), 202)


async def list_models(request: Request) -> Response:
    return reply(ModelList(models=await service_of(request).models()))


async def inspect(request: Request) -> Response:
    body = await read_body(request, InspectRequest)
    return reply(await service_of(request).inspect(body))


async def convert(request: Request) -> Response:
    body = await read_body(request, ConvertRequest)
    return reply(await service_of(request).convert(body))


async def count_tokens(request: Request) -> Response:
    body = await read_body(request, TokensRequest)
    return reply(await service_of(request).count_tokens(body))


async def read_parameters(request: Request) -> Response:
    body = await read_body(request, ParametersRequest)
    return reply(await service_of(request).read_parameters(body))


routes = [
    Route("/v1/embeddings", list_words, methods=["GET"]),
    Route("/v1/embeddings", create_word, methods=["POST"]),
    Route("/v1/inspect", inspect, methods=["POST"]),
    Route("/v1/convert", convert, methods=["POST"]),
    Route("/v1/tokens", count_tokens, methods=["POST"]),
    Route("/v1/parameters", read_parameters, methods=["POST"]),
    Route("/v1/models", list_models, methods=["GET"]),
]
