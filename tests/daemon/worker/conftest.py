"""A supervised stand-in worker whose messages and end can be awaited."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.worker.supervise import Limits, Worker, WorkerExit

PATIENCE_S = 20.0
"""Only a hang takes this long."""

STANDIN = (sys.executable, "-P", "-m", "tests.daemon.worker.standin")


class Watched:
    """A worker with everything it said."""

    def __init__(self, log: Path, limits: Limits | None, command: tuple[str, ...]) -> None:
        self.log = log
        self.messages: list[dict[str, Any]] = []
        self.exits: list[WorkerExit] = []
        self._news = asyncio.Event()
        self.worker = Worker(log=log, on_message=self._take, on_exit=self._end, limits=limits, command=command)

    def _take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self._news.set()

    def _end(self, end: WorkerExit) -> None:
        self.exits.append(end)
        self._news.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for news until `condition` holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def message(self, kind: str) -> dict[str, Any]:
        """Wait for the first message of a kind."""
        await self.until(lambda: self.exits or any(message["type"] == kind for message in self.messages))
        return next(message for message in self.messages if message["type"] == kind)

    async def end(self) -> WorkerExit:
        await self.until(lambda: self.exits)
        return self.exits[0]


Hire = Callable[..., Awaitable[Watched]]


@pytest.fixture
async def hire(tmp_path: Path) -> AsyncIterator[Hire]:
    """Start workers; whatever is left of them at the end is killed."""
    hired: list[Watched] = []

    async def start(
        limits: Limits | None = None, settings: dict[str, Any] | None = None, command: tuple[str, ...] = STANDIN
    ) -> Watched:
        watched = Watched(tmp_path / "worker.log", limits, command)
        hired.append(watched)
        await watched.worker.start(settings or {})
        return watched

    yield start
    for watched in hired:
        watched.worker.kill()
        await watched.end()
