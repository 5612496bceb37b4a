"""The program `vocabled` as a process: starting, a second one, signals, being killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.client import Client, ensure_daemon
from daemon.paths import Workspace
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, recipe

Process = asyncio.subprocess.Process


async def vocabled(workspace: Workspace, *options: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "daemon", "--workspace", str(workspace.root), *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def end(process: Process) -> tuple[int, str]:
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert output == b""
    text = errors.decode()
    assert "Traceback" not in text
    return process.returncode or 0, text


@contextlib.asynccontextmanager
async def started(workspace: Workspace) -> AsyncIterator[tuple[Process, Client]]:
    """A service in the foreground that answers; killed at the end if it still lives."""
    process = await vocabled(workspace)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while b" ready on " not in (line := await process.stderr.readline()):
                assert line, "the service ended"
        async with Client(workspace.state / "vocable.sock") as client:
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_second_service_ends_with_75_and_the_first_goes_on(workspace: Workspace) -> None:
    async with started(workspace) as (first, client):
        inode = client.socket.stat().st_ino
        code, text = await end(await vocabled(workspace))
        assert (code, text.count("\n")) == (75, 1)
        assert f"A service (pid {first.pid}) runs on this workspace already" in text
        assert (await client.info()).pid == first.pid
        assert client.socket.stat().st_ino == inode


async def test_bad_settings_end_with_78_also_in_the_background(workspace: Workspace) -> None:
    workspace.settings.write_text("[service]\nidle = 3\n")
    for options in ((), ("--detach",)):
        code, text = await end(await vocabled(workspace, *options))
        assert (code, text.count("\n")) == (78, 1)
        assert "service.idle is not known" in text
    with pytest.raises(VocableError, match=r"cannot be used: service\.idle is not known"):
        await ensure_daemon(workspace)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_service_with_bye_and_no_socket(workspace: Workspace, number: int) -> None:
    async with started(workspace) as (process, client):
        stream = client.events()
        await anext(stream)
        process.send_signal(signal.SIGHUP)
        process.send_signal(number)
        kinds = [line.type async for line in stream]
        assert kinds[-1] == "bye"
        code, text = await end(process)
        assert (code, "stopped" in text) == (0, True)
        assert not client.socket.exists()


async def test_neither_stalled_readers_nor_half_sent_requests_hold_the_end_up(workspace: Workspace) -> None:
    async with started(workspace) as (process, client):
        idle, half = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /v1/st"
        never_read = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000
        peers = []
        for data in (b"", half, idle, never_read):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(client.socket))
            peer.send(data)
            peers.append(peer)
        await client.info()
        process.send_signal(signal.SIGTERM)
        code, _ = await asyncio.wait_for(end(process), 10)
        assert code == 0
        for peer in peers:
            peer.close()


async def test_after_kill_9_the_next_service_has_every_run(workspace: Workspace) -> None:
    made: list[str] = []
    for round_ in range(3):
        async with started(workspace) as (process, client):
            assert [run.id for run in sorted(await client.runs(), key=lambda run: run.created_at)] == made
            with contextlib.suppress(VocableError):
                for number in range(20):
                    if number == 3 * (round_ + 1):
                        asyncio.get_running_loop().call_later(0.002 * round_, process.kill)
                    made.append((await client.create_run(recipe(workspace, f"w{round_} {number}"))).id)
            await process.wait()
        made = sorted_by_creation(workspace, made)
    assert len(made) >= 15


def sorted_by_creation(workspace: Workspace, made: list[str]) -> list[str]:
    """All runs in the history, which must hold each that was answered for."""
    connection = sqlite3.connect(workspace.database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = [row[0] for row in connection.execute("SELECT id FROM runs ORDER BY created_at")]
    connection.close()
    assert set(made) <= set(kept)
    return kept


async def test_a_history_of_a_newer_program_leaves_everything_readable(workspace: Workspace) -> None:
    connection = sqlite3.connect(workspace.database)
    connection.executescript("PRAGMA application_id = 0x566F6361; PRAGMA user_version = 99; CREATE TABLE future (x);")
    connection.close()
    async with started(workspace) as (_, client):
        assert "newer Vocable" in (await client.state()).problem
        with pytest.raises(VocableError, match="newer Vocable") as caught:
            await client.create_run(recipe(workspace))
        assert caught.value.code == "service.degraded"


async def test_a_client_starts_the_service_in_the_background_and_two_clients_share_one(workspace: Workspace) -> None:
    clients = await asyncio.gather(*(ensure_daemon(workspace) for _ in range(3)))
    try:
        infos = [await client.info() for client in clients]
        assert len({info.boot_id for info in infos}) == 1
        pid = infos[0].pid
        assert os.getsid(pid) == pid
        assert json.loads(workspace.lock.read_text())["pid"] == pid
        ended = os.pidfd_open(pid)
    finally:
        await clients[0].shutdown()
        for client in clients:
            await client.close()
    await wait_readable(ended)
    assert "stopped" in workspace.daemon_log.read_text()


async def wait_readable(handle: int) -> None:
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, readable.set)
    async with asyncio.timeout(PATIENCE_S):
        await readable.wait()
    asyncio.get_running_loop().remove_reader(handle)
    os.close(handle)


def test_the_log_is_one_safe_line_a_record(tmp_path: Path) -> None:
    code = (
        "import logging, os; from daemon.logs import bind_run, setup_logging; setup_logging(os.environ);"
        "bind_run(logging.getLogger('x'), 'abc').warning('evil \\x1b]52;c;\\x07 \\u202e\\nname')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.endswith("warning [abc] evil \\x1b]52;c;\\x07 \\u202e\\x0aname\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
async def test_files_that_the_kernel_lost_count_of_are_known_at_once_and_it_is_told(workspace: Workspace) -> None:
    """The stopped service reads no notifications, of which the kernel keeps 16,384 by default; a file makes three."""
    count = kept_notifications() // 2
    workspace.create()
    (workspace.datasets / "flood").mkdir()
    async with started(workspace) as (process, client):
        async with asyncio.timeout(PATIENCE_S):
            while (await client.state()).folders["datasets"]["mode"] != "inotify":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stream = client.events()
        await anext(stream)
        process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(flood, workspace.datasets / "flood", count)
        process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_S):
            async for line in stream:
                if line.topic == "folder" and line.data["name"] == "datasets" and line.data["overflows"]:
                    break
            while (await client.state()).folders["datasets"]["files"] < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await stream.aclose()  # type: ignore[attr-defined]
        await client.shutdown()
        code, said = await end(process)
        assert (code, "inotify queue overflowed" in said.lower()) == (0, True)


def kept_notifications() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def flood(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(b"x")
