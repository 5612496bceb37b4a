"""Routes of what prompts and recipes can name: words and base models."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.api.bodies import read_body, reply, service_of
from daemon.protocol.jobs import CreateEmbedding
from daemon.protocol.service import ModelList, WordList


async def list_words(request: Request) -> Response:
    return reply(WordList(words=service_of(request).library.words()))


async def create_word(request: Request) -> Response:
    body = await read_body(request, CreateEmbedding)
    return reply(await service_of(request).create_embedding(body), 202)


async def list_models(request: Request) -> Response:
    return reply(ModelList(models=await service_of(request).models()))


routes = [
    Route("/v1/embeddings", list_words, methods=["GET"]),
    Route("/v1/embeddings", create_word, methods=["POST"]),
    Route("/v1/models", list_models, methods=["GET"]),
]
