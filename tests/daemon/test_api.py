"""What the socket answers to everything that is not as it should be; raw bytes where no client library would do."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from daemon import connections
from daemon.api import bodies
from daemon.events import MAX_STREAMS
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Running, open_http, recipe


@pytest.fixture
async def http(running: Running) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_http(running) as http:
        yield http


async def send_raw(path: Path, data: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes and read one reply to its end."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
    writer.close()
    return int(head.split()[1]), json.loads(body)


def check(response: httpx2.Response, status: int, code: str) -> str:
    """Check the envelope and return its title."""
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert "Traceback" not in response.text
    title: str = error["title"]
    assert title.endswith(".")
    return title


async def test_unknown_paths_and_wrong_methods_are_told(http: httpx2.AsyncClient) -> None:
    check(await http.get("/v1/nothing"), 404, "request.unknown")
    check(await http.get("/v1"), 404, "request.unknown")
    check(await http.delete("/v1/runs"), 405, "request.method")
    check(await http.get("/v1/runs/a/pause"), 405, "request.method")
    check(await http.post("/v1/runs/a/explode"), 404, "request.unknown")
    check(await http.get("/v1/runs/a%00b"), 404, "run.unknown")


NO_OBJECTS = (
    b"",
    b"{",
    b"[]",
    b'"text"',
    b'{"recipe": NaN}',
    b'{"recipe": Infinity}',
    b'{"recipe": {}, "recipe": {}}',
    b'{"recipe": {"name": "\\ud800"}}',
    b'{"recipe": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b"\xff\xfe",
)


async def test_a_body_that_is_no_proper_json_object_is_refused(http: httpx2.AsyncClient) -> None:
    for body in NO_OBJECTS:
        check(await http.post("/v1/runs", content=body), 400, "request.invalid")


WRONG_FIELDS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("/v1/runs", {"recipe": []}, "recipe"),
    ("/v1/runs", {}, "recipe"),
    ("/v1/generate", {"prompts": [], "output": "/x.png"}, "prompts"),
    ("/v1/generate", {"prompts": ["a"], "output": "/x.png", "seed": 10**30}, "seed"),
    ("/v1/generate", {"prompts": ["a"], "output": "/x.png", "sampler": "none"}, "sampler"),
    ("/v1/generate", {"prompts": ["a"], "output": "/x.png", "extra": 1}, "extra"),
    ("/v1/evaluate", {"folder": "/x", "phrases": "a"}, "phrases"),
    ("/v1/embeddings", {"name": 3}, "name"),
)


async def test_wrong_fields_are_named(http: httpx2.AsyncClient) -> None:
    for path, body, field in WRONG_FIELDS:
        response = await http.post(path, json=body)
        check(response, 422, "request.fields")
        assert [fault["path"] for fault in response.json()["error"]["faults"]] == [field]


async def test_requests_that_cannot_be_met_are_refused_before_they_are_queued(http: httpx2.AsyncClient) -> None:
    request = {"prompts": ["a"], "output": "/x.png"}
    check(await http.post("/v1/generate", json={**request, "model": "none"}), 422, "model.unknown")
    check(await http.post("/v1/generate", json={**request, "output": "x.png"}), 400, "request.invalid")
    check(await http.post("/v1/embeddings", json={"name": "a/b", "model": "tiny"}), 422, "embedding.name")
    check(await http.get("/v1/jobs/none"), 404, "job.unknown")
    check(await http.get("/v1/runs/none/losses?points=many"), 400, "request.invalid")
    check(await http.get("/v1/events?after=yesterday"), 400, "request.invalid")
    check(
        await http.post("/v1/runs", json={"recipe": {}}, headers={"idempotency-key": "k" * 257}), 400, "request.invalid"
    )


async def test_a_recipe_with_faults_tells_each_with_its_path(http: httpx2.AsyncClient, running: Running) -> None:
    body = {"recipe": recipe(running.workspace, train={"learn_rate": "fast"})}
    response = await http.post("/v1/runs", json=body)
    check(response, 422, "recipe.invalid")
    assert response.json()["error"]["faults"][0]["path"] == "train.learn_rate"


async def test_what_a_browser_sends_is_refused(http: httpx2.AsyncClient) -> None:
    for header in ({"origin": "http://evil"}, {"referer": "http://evil/"}, {"host": "evil.example"}):
        check(await http.get("/v1/", headers=header), 403, "request.foreign")


async def test_a_body_over_the_limit_is_refused_announced_or_not(http: httpx2.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(bodies.MAX_BODY // 65536 + 1):
            yield b" " * 65536

    check(await http.post("/v1/runs", content=b" " * (bodies.MAX_BODY + 1)), 413, "request.too_large")
    check(await http.post("/v1/runs", content=chunks()), 413, "request.too_large")


async def test_bytes_that_are_no_request_are_answered_in_the_same_envelope(running: Running) -> None:
    for data in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET \xff HTTP/1.1\r\n\r\n"):
        status, reply = await send_raw(running.client.socket, data)
        assert (status, reply["error"]["code"]) == (400, "request.invalid")


ENDLESS = {
    "nothing": b"",
    "half the headers": b"GET /v1/ HTTP/1.1\r\nHost: x",
    "half the body": b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
}


@pytest.mark.parametrize("part", ENDLESS)
async def test_a_request_that_never_ends_is_given_up(
    running: Running, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.05)
    status, reply = await send_raw(running.client.socket, ENDLESS[part])
    assert (status, reply["error"]["code"]) == (408, "request.slow")


async def test_a_fault_of_ours_is_told_without_its_traceback(
    running: Running, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("daemon.service.Service.state_json", lambda self: 1 / 0)
    title = check(await http.get("/v1/state"), 500, "internal")
    assert "division" not in title
    assert "ZeroDivisionError" in caplog.text


async def test_connections_over_the_limit_are_refused_and_room_is_made_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    await running.client.info()
    _, held = await asyncio.open_unix_connection(running.client.socket)
    await running.client.info()
    status, reply = await send_raw(running.client.socket, b"")
    assert (status, reply["error"]["code"]) == (503, "service.busy")
    held.close()
    await held.wait_closed()
    await running.client.info()


async def test_streams_over_the_limit_are_refused(running: Running) -> None:
    streams = [running.client.events() for _ in range(MAX_STREAMS)]
    for stream in streams:
        assert (await anext(stream)).type == "hello"
    with pytest.raises(VocableError, match="clients follow the events already"):
        await anext(running.client.events())
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]


async def test_connections_that_are_reset_leave_nothing_behind(running: Running) -> None:
    await running.until_watched()  # each watch takes descriptors of its own with its first look
    before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    requests = [
        b"",
        b"GET /v1/ev",
        b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/state HTTP/1.1\r\n",
    ]
    for number in range(200):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(str(running.client.socket))
        client.send(requests[number % len(requests)])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if number % 3:
            await asyncio.sleep(0)
        client.close()
    async with asyncio.timeout(PATIENCE_S):
        while (len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())) > before:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")
async def test_another_user_is_refused_even_if_the_file_modes_let_him_in(running: Running) -> None:
    path = running.client.socket
    for folder in path.parents:
        if folder.stat().st_mode & 0o011 != 0o011:
            folder.chmod(0o755)
    path.chmod(0o666)
    stranger = socket.socket(socket.AF_UNIX)
    os.seteuid(65534)
    try:
        stranger.connect(str(path))
    finally:
        os.seteuid(0)
    reader, writer = await asyncio.open_unix_connection(sock=stranger)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"request.peer" in answer
