"""The client against a service that is not there, goes away, hangs, or speaks otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon import client as client_module
from daemon.client import Client
from engine.errors import VocableError
from tests.daemon.conftest import Running

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def impostor(path: Path, script: Script) -> AsyncIterator[Client]:
    """A client of a server that answers each connection by `script`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await script(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    async with server, Client(path) as client:
        yield client


def replying(body: str, status: str = "200 OK") -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()

    return script


async def code_of(call: Awaitable[object]) -> str:
    with pytest.raises(VocableError) as caught:
        await call
    return caught.value.code


async def test_no_service_is_link_absent(tmp_path: Path) -> None:
    async with Client(tmp_path / "none") as client:
        assert await code_of(client.info()) == "link.absent"
        assert await code_of(anext(client.events())) == "link.absent"


async def test_a_connection_that_breaks_is_link_lost(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async with impostor(tmp_path / "s", hang_up) as client:
        assert await code_of(client.info()) == "link.lost"


async def test_a_service_that_is_silent_is_link_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "REPLY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(client_module, "HEARTBEAT_S", 0.02)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with impostor(tmp_path / "s", say_nothing) as client:
        assert await code_of(client.info()) == "link.lost"
        assert await code_of(anext(client.events())) == "link.lost"


@pytest.mark.parametrize(
    "reply", ['{"api": 2, "daemon": "9", "boot_id": "b", "pid": 1, "workspace": "", "socket": ""}', "{}", "hi"]
)
async def test_another_protocol_is_link_version(tmp_path: Path, reply: str) -> None:
    async with impostor(tmp_path / "s", replying(reply)) as client:
        assert await code_of(client.info()) == "link.version"


async def test_an_error_without_our_envelope_is_link_version(tmp_path: Path) -> None:
    async with impostor(tmp_path / "s", replying("oops", "502 Bad Gateway")) as client:
        assert await code_of(client.runs()) == "link.version"


async def test_fields_and_events_of_a_newer_service_are_ignored(tmp_path: Path) -> None:
    lines = '{"type":"hello","boot_id":"b","new":1}\n{"type":"novelty"}\n{"type":"bye","reason":"over"}\n'
    async with impostor(tmp_path / "s", replying(lines)) as client:
        assert [line.type async for line in client.events()] == ["hello", "bye"]


async def test_a_stream_that_just_ends_is_link_lost(tmp_path: Path) -> None:
    async with impostor(tmp_path / "s", replying('{"type":"hello"}\n')) as client:
        stream = client.events()
        assert (await anext(stream)).type == "hello"
        assert await code_of(anext(stream)) == "link.lost"


async def test_the_service_tells_who_it_is_and_what_models_there_are(running: Running) -> None:
    info = await running.client.info()
    assert (info.api, info.workspace) == (1, str(running.workspace.root))
    assert "tiny" in [model.name for model in await running.client.models()]


async def test_the_stream_begins_at_once_although_nothing_happens(running: Running) -> None:
    stream = running.client.events()
    assert (await asyncio.wait_for(anext(stream), 5)).type == "hello"
