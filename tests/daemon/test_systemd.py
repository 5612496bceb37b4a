"""What is said to the service manager and taken from it; a socket of the test plays the manager."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemon.client import Client
from daemon.paths import Workspace
from daemon.systemd import Notifier, keep_posted, take_notifier, take_sockets
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, recipe, serving

Process = asyncio.subprocess.Process


class Manager:
    """The receiving end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.heard: list[str] = []

    async def hear(self, pattern: str) -> str:
        """The next assignment that matches."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                lines = (await loop.sock_recv(self._socket, 4096)).decode().splitlines()
                self.heard += lines
                for line in lines:
                    if re.fullmatch(pattern, line):
                        return line

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="vt-") as folder:
        manager = Manager(Path(folder) / "notify")
        yield manager
        manager.close()


@contextlib.asynccontextmanager
async def vocabled(workspace: Workspace, **environ: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "daemon", "--workspace", str(workspace.root)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environ},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_ready_is_said_when_the_socket_answers_and_signs_of_life_follow_until_the_end(
    workspace: Workspace, manager: Manager
) -> None:
    async with vocabled(workspace, NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="300000") as process:
        await manager.hear("READY=1")
        async with Client(workspace.state / "vocable.sock") as client:
            assert (await client.info()).pid == process.pid
            for _ in range(3):
                await manager.hear("WATCHDOG=1")
            await client.create_run(recipe(workspace, "gitte"))
            assert "gitte" in await manager.hear("STATUS=.*gitte.*")
        process.send_signal(signal.SIGTERM)
        await manager.hear("STOPPING=1")
        await manager.hear("EXTEND_TIMEOUT_USEC=[0-9]+")
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    assert manager.heard.index("READY=1") < manager.heard.index("WATCHDOG=1")


async def test_a_stopped_service_gives_no_sign_of_life(workspace: Workspace, manager: Manager) -> None:
    async with vocabled(workspace, NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="60000") as process:
        await manager.hear("WATCHDOG=1")
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(manager.hear("nothing else"), 1)
        heard = len(manager.heard)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(manager.hear("WATCHDOG=1"), 0.5)
        assert len(manager.heard) == heard
        process.send_signal(signal.SIGCONT)
        await manager.hear("WATCHDOG=1")


async def test_a_loop_that_is_blocked_over_and_over_gives_no_sign_of_life(manager: Manager) -> None:
    posting = asyncio.create_task(keep_posted(Notifier(str(manager.path), watchdog_s=0.03), lambda: "x"))
    await manager.hear("WATCHDOG=1")
    await manager.hear("STATUS=x")
    heard = len(manager.heard)
    for _ in range(20):
        time.sleep(0.05)  # noqa: ASYNC251 - the block is what is tested
        await asyncio.sleep(0)
    posting.cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(manager.hear("WATCHDOG=1"), 0.1)
    assert manager.heard[heard:] == []


async def test_without_a_manager_nothing_is_sent_and_nothing_fails() -> None:
    await asyncio.wait_for(keep_posted(Notifier(), lambda: "x"), PATIENCE_S)
    Notifier("/nonexistent/notify").tell("READY=1")


async def test_a_message_reaches_an_abstract_address_and_stays_on_its_line() -> None:
    name = f"vocable-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        Notifier(f"@{name}").tell_status("evil\nREADY=1 \x1b[2J", "WATCHDOG=1")
        assert receiver.recv(4096) == b"STATUS=evil\\x0aREADY=1 \\x1b[2J\nWATCHDOG=1"


def test_a_watchdog_for_another_process_is_not_fed() -> None:
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7", "PATH": "/bin"}
    assert take_notifier(dict(environ), 8) == Notifier("/n", 0.0)
    assert take_notifier(environ, 7) == Notifier("/n", 30.0)
    assert environ == {"PATH": "/bin"}


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="vocable", LISTEN_PID=sys.argv[2] or str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "daemon", *sys.argv[3:]])
"""


@contextlib.asynccontextmanager
async def activated(workspace: Workspace, listener: socket.socket, pid: str = "") -> AsyncIterator[Process]:
    """The service with `listener` as descriptor 3, for itself or for the process `pid`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ACTIVATE, str(listener.fileno()), pid, "--workspace", str(workspace.root)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[listener.fileno()],
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def listener(workspace: Workspace) -> Iterator[socket.socket]:
    """What a socket unit makes: the socket of the workspace with a mode of the unit's own."""
    path = workspace.state / "vocable.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o640)
        listener.listen()
        yield listener


async def test_a_passed_socket_is_served_and_left_as_it_was(workspace: Workspace, listener: socket.socket) -> None:
    path = workspace.state / "vocable.sock"
    before = path.stat()
    for _ in range(2):
        async with activated(workspace, listener) as process, Client(path) as client:
            assert (await client.info()).pid == process.pid
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        after = path.stat()
        assert (after.st_ino, stat.S_IMODE(after.st_mode)) == (before.st_ino, 0o640)


async def test_a_socket_passed_to_another_process_is_none_of_ours(
    workspace: Workspace, listener: socket.socket
) -> None:
    path = workspace.state / "vocable.sock"
    before = path.stat().st_ino
    async with activated(workspace, listener, pid="1") as process:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while b" ready on " not in await process.stderr.readline():
                pass
        assert path.stat().st_ino != before
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_passed_descriptor_that_is_no_listening_socket_ends_the_service_with_78(
    workspace: Workspace, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as unbound:
        async with activated(workspace, unbound) as process:
            _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert (process.returncode, errors.count(b"\n")) == (78, 1)
    assert b"it is no listening Unix stream socket" in errors


def test_variables_of_activation_do_not_reach_children() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "PATH": "/bin"}
    assert take_sockets(environ, 2) == []
    assert environ == {"PATH": "/bin"}


async def test_the_journal_gets_priorities_and_no_times(workspace: Workspace) -> None:
    """Also of the last words, which the program says without a log."""
    workspace.settings.write_text("[service]\nidle = '\x1b[2J'\n".replace("\x1b", "\\u001b").replace("'", '"'))
    reader, writer = os.pipe()
    status = os.fstat(writer)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "daemon", "--workspace", str(workspace.root)),
        stderr=writer,
        env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
    )
    os.close(writer)
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 78
    with os.fdopen(reader) as pipe:
        assert re.fullmatch(r"<3>vocabled: .*service\.idle is not known.*\n", pipe.read())


async def test_whatever_is_logged_is_one_harmless_line_with_its_priority(workspace: Workspace) -> None:
    """By a real service that is given names which would steer a terminal, or make several lines of one."""
    evil = "evil\x1b]0;x\x07\n<0>name\x9b31m\u202e"
    workspace.create()
    reader, writer = os.pipe()
    status = os.fstat(writer)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "daemon", "--workspace", str(workspace.root)),
        stderr=writer,
        env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
    )
    os.close(writer)
    lines: list[str] = []
    with os.fdopen(reader, encoding="utf-8", newline="\n") as pipe:

        async def until(text: str) -> str:
            async with asyncio.timeout(PATIENCE_S):
                while not (lines and text in lines[-1]):
                    lines.append(await asyncio.to_thread(pipe.readline))
            return lines[-1]

        await until("ready on")
        workspace.settings.write_text(f"[service]\n{json.dumps(evil)} = 1\n")
        process.send_signal(signal.SIGHUP)
        assert (await until("settings rejected")).startswith("<3>")
        (workspace.inbox / f"{evil}.toml").write_text(f"name = {json.dumps(evil)}\n")
        assert (await until("is refused")).startswith("<4>")
        async with Client(workspace.state / "vocable.sock") as client:
            run = await client.create_run(recipe(workspace))
        assert (await until("queued")).startswith(f"<6>[{run.id}] ")
        process.send_signal(signal.SIGUSR1)
        await until("state: {")
        process.terminate()
        await until("stopped")
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    assert [line for line in lines if not re.fullmatch(r"<[2-7]>[ -~]+\n", line)] == []


async def test_a_record_of_a_run_carries_its_id(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving(workspace) as running:
        run = await running.train("gitte")
        await running.until_state(run.id, "running")
    bound = [record.getMessage() for record in caplog.records if getattr(record, "run", "") == run.id]
    assert "queued 'gitte'" in bound
    assert "goes to the worker" in bound


def test_descriptors_that_are_no_sockets_are_told() -> None:
    with pytest.raises(VocableError, match="descriptor 3 cannot be used") as caught:
        run_isolated_take()
    assert caught.value.code == "socket.passed"


def run_isolated_take() -> None:
    """Put a plain file where a passed socket would be, and put back what was there."""
    saved = os.dup(3) if os.path.exists("/proc/self/fd/3") else -1
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 3)
        try:
            take_sockets({"LISTEN_PID": "5", "LISTEN_FDS": "1"}, 5)
        finally:
            if saved >= 0:
                os.dup2(saved, 3, inheritable=False)
                os.close(saved)
            else:
                os.close(3)
