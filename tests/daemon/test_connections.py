"""Limits of the socket that hold whatever clients do: streams, connections, readers that stand still."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from daemon import connections
from daemon.events import MAX_STREAMS
from daemon.paths import Workspace
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Running

EVENTS = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATE = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_exactly_so_many_streams_are_served_when_more_come_at_once(running: Running) -> None:
    peers = [await asyncio.open_unix_connection(running.client.socket) for _ in range(MAX_STREAMS + 9)]
    for _, writer in peers:
        writer.write(EVENTS)
    async with asyncio.timeout(PATIENCE_S):
        heads = [(await reader.readuntil(b"\r\n\r\n"))[:12] for reader, _ in peers]
    assert heads.count(b"HTTP/1.1 200") == MAX_STREAMS
    assert heads.count(b"HTTP/1.1 503") == 9
    for _, writer in peers:
        writer.close()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                assert (await anext(running.client.events())).type == "hello"
                return
            except VocableError:
                await asyncio.sleep(0.01)


async def test_a_refused_client_learns_why_although_its_request_is_not_read(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.client.info()
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 0)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        peer.connect(str(running.client.socket))
        peer.send(STATE)  # before the service has a turn to see the connection
        answer = b""
        async with asyncio.timeout(PATIENCE_S):
            while data := await asyncio.get_running_loop().sock_recv(peer, 4096):
                answer += data
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"service.busy" in answer


async def test_a_client_that_takes_nothing_is_cut_off(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        peer.connect(str(running.client.socket))
        peer.send(2000 * STATE)
        async with asyncio.timeout(PATIENCE_S):
            while not is_closed(peer):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
    assert (await running.client.info()).pid == os.getpid()


def is_closed(peer: socket.socket) -> bool:
    """Whether the other end is gone; nothing is read or written."""
    poll = select.poll()
    poll.register(peer, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


@pytest.fixture
async def process(workspace: Workspace) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "daemon", "--workspace", str(workspace.root)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_connections_reset_at_any_point_leave_nothing_behind(
    workspace: Workspace, process: asyncio.subprocess.Process
) -> None:
    """The process itself says what it holds; what it still takes while it warms up ends, what leaks goes on."""
    assert process.stderr is not None
    path = str(workspace.state / "vocable.sock")
    log = process.stderr
    async with asyncio.timeout(6 * PATIENCE_S):
        while b" ready on " not in await log.readline():
            pass
        before = await storm_and_settle(process, path)
        while not is_no_more(after := await storm_and_settle(process, path), before):
            before = after


def is_no_more(after: dict[str, Any], before: dict[str, Any]) -> bool:
    held = all(after[key] <= before[key] for key in ("tasks", "descriptors"))
    return held and after["resident_bytes"] < before["resident_bytes"] + (1 << 20)


async def storm_and_settle(process: asyncio.subprocess.Process, path: str) -> dict[str, Any]:
    """What the service holds after two thousand connections, once none of them is left."""
    assert process.stderr is not None
    for _ in range(10):
        await storm(path)
    while True:
        process.send_signal(signal.SIGUSR1)
        while " state: {" not in (line := (await process.stderr.readline()).decode()):
            assert line, "the service has ended"
        state: dict[str, Any] = json.loads(line[line.index("{") :])
        if not state["connections"] + state["streams"]:
            return state
        await asyncio.sleep(0.05)


async def storm(path: str) -> None:
    requests = (
        b"",
        b"GET /v1/ev",
        EVENTS,
        STATE,
        STATE + EVENTS,
        b"POST /v1/runs HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    )
    for number in range(200):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE_S)
            await asyncio.to_thread(peer.connect, path)
            peer.send(requests[number % len(requests)])
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 3 == 0:
                await asyncio.sleep(0)
