"""Every failure as a status and the one envelope: `{"error": {"code", "title", "hint", "faults"?}}`."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from daemon.api.codes import status_of
from daemon.runs import describe_error
from engine.errors import Fault, RecipeError, VocableError
from engine.text import end_sentence, escape


class FieldError(VocableError):
    """A body whose fields are wrong; tells all of them at once."""

    def __init__(self, faults: list[Fault]) -> None:
        lines = "; ".join(f"{fault.path}: {fault.message}" for fault in faults)
        title = end_sentence(f"The request is wrong: {lines}")
        super().__init__("request.fields", title, "Correct these fields and try again.")
        self.faults = faults

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "faults": [vars(fault) for fault in self.faults]}


def envelope(error: VocableError) -> dict[str, Any]:
    info = describe_error(error).model_dump()
    if not isinstance(error, FieldError | RecipeError):
        del info["faults"]
    return {"error": info}


def encode_error(error: VocableError) -> tuple[int, bytes]:
    """Status and body of a failure, for where there is no request object yet."""
    return status_of(error.code), json.dumps(envelope(error)).encode()


async def answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VocableError)
    status = status_of(error.code)
    headers = {"connection": "close"} if status in (408, 413) else None
    return JSONResponse(envelope(error), status, headers)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and wrong methods, which Starlette itself notices."""
    assert isinstance(error, HTTPException)
    path = escape(request.url.path, 200)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        problem = VocableError(
            "request.method", f"{request.method} is not possible for {path}.", "GET /v1/ tells who answers."
        )
    elif error.status_code == HTTPStatus.NOT_FOUND:
        problem = VocableError("request.unknown", f"There is nothing at {path}.", "GET /v1/ tells who answers.")
    else:
        problem = VocableError("request.invalid", f"The request is wrong: {error.detail}.")
    return JSONResponse(envelope(problem), error.status_code, error.headers)


async def answer_surprise(request: Request, error: Exception) -> Response:
    """A fault of ours: the traceback goes to the log, not to the client."""
    logging.getLogger(__name__).error("%s %s failed", request.method, request.url.path, exc_info=error)
    problem = VocableError(
        "internal", "The service failed at this request.", "Its log tells more: vocable daemon logs. Please report it."
    )
    return JSONResponse(envelope(problem), 500)
