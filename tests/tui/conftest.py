"""The terminal program without a terminal: a screen of chosen size before a service that does as it is told."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from daemon.client import socket_for
from daemon.paths import Workspace
from tests.tui.fake_daemon import FakeDaemon, running_daemon
from tui.app import VocableApp
from tui.terminal import Terminal
from tui.theme import Options

TIMEOUT_S = 20.0
"""Far beyond what anything here takes; only a fault reaches it."""

NO_PICTURES = Terminal("off", ("half", "ascii", "off"))


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    """An empty workspace with a path short enough for a socket, whatever the name of the test."""
    root = Path(tempfile.mkdtemp(prefix="vt-"))
    (root / "state").mkdir(mode=0o700)
    yield Workspace(root)
    shutil.rmtree(root)


@pytest.fixture
async def daemon(workspace: Workspace) -> AsyncIterator[FakeDaemon]:
    """A service without runs that listens for the workspace."""
    async with running_daemon(socket_for(workspace)) as fake:
        yield fake


@asynccontextmanager
async def open_app(
    workspace: Workspace,
    *,
    size: tuple[int, int] = (80, 24),
    options: Options | None = None,
    terminal: Terminal = NO_PICTURES,
    silence_timeout_s: float = TIMEOUT_S,
) -> AsyncIterator[Pilot[None]]:
    """Open the program; its screen is there when this returns, what the service says is not yet."""
    app = VocableApp(workspace, options or Options(), terminal, silence_timeout_s=silence_timeout_s)
    async with app.run_test(size=size) as pilot:
        yield pilot


def screen_text(pilot: Pilot[None]) -> str:
    """What stands on the screen, line by line."""
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


async def see(pilot: Pilot[None], *texts: str) -> str:
    """Wait until all texts stand on the screen, and return it."""
    await until(pilot, lambda: all(text in screen_text(pilot) for text in texts), what=lambda: screen_text(pilot))
    return screen_text(pilot)


async def see_no(pilot: Pilot[None], text: str) -> None:
    """Wait until a text is gone."""
    await until(pilot, lambda: text not in screen_text(pilot), what=lambda: screen_text(pilot))


async def until(pilot: Pilot[None], condition: Callable[[], bool], what: Callable[[], str] = str) -> None:
    """Let the program work until a condition holds."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"never happened; last seen:\n{what()}"
        await pilot.pause(0.02)
