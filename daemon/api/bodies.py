"""Reading requests: bodies are small JSON objects, read with limits; everything else is refused with a reason."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from daemon.api.errors import FieldError
from daemon.service import Service
from engine.errors import Fault, VocableError

MAX_BODY = 1 << 20
BODY_TIMEOUT_S = 30.0
MAX_KEY = 256

Body = TypeVar("Body", bound=BaseModel)


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def reply(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


async def read_body(request: Request, model: type[Body]) -> Body:
    """The body as a `model`.

    Raises:
        VocableError: `request.invalid` (no JSON object), `request.fields`, `request.too_large`, `request.slow`.
    """
    values = parse_object(await _read_bytes(request))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise FieldError([_describe(dict(fault)) for fault in error.errors()]) from None


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object: no key twice, no NaN or infinity, no text that is no Unicode."""
    try:
        values = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        # A lone surrogate passes the parser and breaks whatever writes it later.
        json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise VocableError("request.invalid", f"The body is not valid JSON: {error}.", "Send a JSON object.") from None
    if not isinstance(values, dict):
        raise VocableError("request.invalid", "The body is not a JSON object.", "Send a JSON object.")
    return values


def read_key(request: Request) -> str:
    """The Idempotency-Key, empty when there is none. Raises VocableError `request.invalid` when it is too long."""
    key = request.headers.get("idempotency-key", "")
    if len(key) > MAX_KEY:
        raise VocableError("request.invalid", f"The Idempotency-Key is longer than {MAX_KEY} characters.")
    return key


def query_number(request: Request, name: str, default: float, *, low: float, high: float) -> float:
    """A number of the query string. Raises VocableError `request.invalid`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise VocableError("request.invalid", f"{name}={text} is not a number from {low:g} to {high:g}.")
    return value


async def _read_bytes(request: Request) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY:
                    raise _too_large()
    except TimeoutError:
        raise VocableError(
            "request.slow", f"The body did not arrive within {BODY_TIMEOUT_S:g} s.", "Try again."
        ) from None
    except ClientDisconnect:
        raise VocableError("request.invalid", "The body broke off.", "Send it again.") from None
    return bytes(data)


def _too_large() -> VocableError:
    return VocableError("request.too_large", f"The body is longer than {MAX_BODY} bytes.", "Send less.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _describe(fault: dict[str, Any]) -> Fault:
    message = str(fault["msg"])
    return Fault(".".join(str(part) for part in fault["loc"]) or "body", message[:1].lower() + message[1:])
