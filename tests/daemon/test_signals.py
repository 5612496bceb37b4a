"""SIGHUP and SIGUSR1 at a running service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.client import Client
from daemon.paths import Workspace
from daemon.protocol.service import StreamLine
from daemon.settings import Settings
from daemon.watch import FolderWatch
from daemon.watch.suspend import follow_suspends
from daemon.worker.pulse import Deadlines
from daemon.worker.supervise import Limits
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Crew, Running, StandIn, make_model, recipe, serving


async def next_problem(client: Client, act: Callable[[], object]) -> str:
    """What is said to be wrong after `act` was done."""
    async with asyncio.timeout(PATIENCE_S):
        async with contextlib.aclosing(cast("AsyncGenerator[StreamLine, None]", client.events())) as stream:
            await anext(stream)
            act()
            async for line in stream:
                if line.topic == "problem":
                    return str(line.data["problem"])
    raise AssertionError("the stream ended")


def hang_up() -> None:
    """Send SIGHUP to this process, in which the service runs."""
    os.kill(os.getpid(), signal.SIGHUP)


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> str:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for record in caplog.records:
                if text in record.getMessage():
                    return record.getMessage()
            await asyncio.sleep(0.01)


async def test_good_settings_are_applied_to_new_lookups_and_to_the_worker(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_model(tmp_path / "more" / "other")
    async with serving(workspace) as running:
        await running.train()
        worker = await running.crew.worker()
        with pytest.raises(VocableError, match="other"):
            await running.client.create_run(recipe(workspace, "second", model="other"))
        workspace.settings.write_text(f'[service]\nidle_unload_s = 33\n[paths]\nmodels = ["{tmp_path}/more"]\n')
        hang_up()
        told = await worker.told("settings")
        assert told["models"] == [str(workspace.models), f"{tmp_path}/more"]
        assert (await running.client.create_run(recipe(workspace, "second", model="other"))).state == "queued"
        assert "service.idle_unload_s = 33" in await until_logged(caplog, "settings read again")


async def test_bad_settings_are_refused_and_shown_until_they_are_corrected(workspace: Workspace) -> None:
    workspace.settings.write_text("[service]\nidle_unload_s = 44\n")
    async with serving(workspace) as running:
        workspace.settings.write_text("[service]\nidle_unload_s = 'soon'\n")
        assert "service.idle_unload_s" in await next_problem(running.client, hang_up)
        assert "The old settings stay in force." in (await running.client.state()).problem
        workspace.settings.unlink()
        assert await next_problem(running.client, hang_up) == ""


async def test_deadlines_that_changed_are_those_of_the_next_worker(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    crew, deadlines = Crew(), []

    def hire(*, limits: Limits, log: Path, on_message: Any, on_exit: Any) -> StandIn:
        deadlines.append(limits.deadlines)
        return crew.hire(on_message, on_exit)

    monkeypatch.setattr("daemon.service.Worker", hire)
    async with serving(workspace, crew, make_worker=None) as running:
        await running.train()
        workspace.settings.write_text("[deadlines]\nfirst_step_s = 7200\n")
        hang_up()
        assert "deadlines.first_step_s = 7200 for the next worker" in await until_logged(caplog, "settings read again")
        (await crew.worker()).die()
        await crew.worker(2)
    assert deadlines == [Deadlines(), Deadlines(first_step_s=7200)]


FOLDERS = {"embeddings", "hypernetworks", "datasets", "templates", "models", "inbox"}


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders that were asked to be looked through."""
    names: set[str] = set()
    look = FolderWatch.look_soon

    def note(watch: FolderWatch) -> None:
        names.add(watch.root.name)
        look(watch)

    monkeypatch.setattr(FolderWatch, "look_soon", note)
    return names


async def until_all(looked: set[str]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not looked >= FOLDERS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_all_watched_folders_are_looked_through(workspace: Workspace, looked: set[str]) -> None:
    async with serving(workspace):
        hang_up()
        await until_all(looked)


async def test_a_machine_that_was_suspended_looks_through_its_folders(
    workspace: Workspace, looked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended_s = 0.0
    follow = partial(follow_suspends, suspended_s=lambda: suspended_s, interval_s=0.01)
    monkeypatch.setattr("daemon.server.follow_suspends", follow)
    async with serving(workspace) as running:
        await running.client.info()
        assert looked == set()
        suspended_s = 3600.0
        await until_all(looked)


async def test_what_only_a_restart_can_change_is_said(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving(workspace):
        workspace.settings.write_text("[service]\ngroup = 'users'\n")
        hang_up()
        assert "service.group changes with the next start" in await until_logged(caplog, "settings read again")


async def test_a_storm_of_a_hundred_changes_nothing_and_ends_with_the_newest_settings(workspace: Workspace) -> None:
    async with serving(workspace, settings=Settings()) as running:
        for number in range(100):
            workspace.settings.write_text(f"[service]\nidle_unload_s = {number + 1}\n" if number % 3 else "[service")
            hang_up()
            if number % 10 == 0:
                assert (await running.client.info()).pid == os.getpid()
        workspace.settings.write_text("[service]\ngrup = 'x'\n")
        hang_up()
        async with asyncio.timeout(PATIENCE_S):
            while "did you mean service.group" not in (await running.client.state()).problem:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_the_state_is_logged_on_one_line(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving(workspace) as running:
        run = await running.train()
        await running.until_state(run.id, "running")
        os.kill(os.getpid(), signal.SIGUSR1)
        state = json.loads((await until_logged(caplog, "state: ")).removeprefix("state: "))
    assert state["runs"] == {"running": 1}
    assert state["problem"] == ""
    assert state["worker"]["pid"] == 4_000_000


async def test_a_terminal_that_closes_does_not_end_the_service(workspace: Workspace) -> None:
    """The service is the leader of the terminal's session, so the kernel sends it SIGHUP when the other end closes."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IN_TERMINAL, "--workspace", str(workspace.root)),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        async with Client(workspace.state / "vocable.sock") as client:
            async with asyncio.timeout(PATIENCE_S):
                said = b""
                while b" ready on " not in said:
                    said += await asyncio.to_thread(os.read, master, 4096)
            workspace.settings.write_text("[service\n")
            assert "is not TOML" in await next_problem(client, lambda: os.close(master))
            await client.shutdown()
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


IN_TERMINAL = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv[0] = "vocabled"
runpy.run_module("daemon", run_name="__main__")
"""


async def test_a_client_has_every_folder_looked_through(running: Running, looked: set[str]) -> None:
    await running.until_watched()
    looked.clear()
    assert set(await running.client.rescan()) == FOLDERS
    assert looked == FOLDERS
