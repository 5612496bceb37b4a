"""The real programs in a workspace of their own: the command line as a subprocess, and the service it starts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.client import Client
from daemon.protocol.runs import RunView

TIMEOUT_S = 120.0
"""Far beyond what any step of a journey takes; only a hang reaches it."""


@dataclass(frozen=True)
class Place:
    """A workspace with the commands that act on it."""

    root: Path

    def vocable(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command line and check its exit code."""
        environment = {**os.environ, "VOCABLE_WORKSPACE": str(self.root), "NO_COLOR": "1"}
        result = subprocess.run(
            [sys.executable, "-m", "tui", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.root,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == code, (
            f"{arguments} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
        )
        assert "Traceback" not in result.stdout + result.stderr
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.vocable(*arguments, "--json", code=code).stdout)

    @property
    def socket(self) -> Path:
        return Path(self.json("daemon", "status")["socket"])

    def wait_for(self, run: str, condition: Callable[[RunView], bool]) -> RunView:
        """Follow the service's events until the run's view meets `condition`."""
        return asyncio.run(asyncio.wait_for(_wait_for(self.socket, run, condition), TIMEOUT_S))

    def wait_for_words(self, condition: Callable[[set[str]], bool]) -> None:
        """Follow the service's events until the names of its usable words meet `condition`."""
        asyncio.run(asyncio.wait_for(_wait_for_words(self.socket, condition), TIMEOUT_S))

    def train(self, name: str, *settings: str) -> dict[str, Any]:
        """Queue a short run on the sample pictures without waiting for it."""
        flags = [flag for setting in settings for flag in ("--set", setting)]
        run: dict[str, Any] = self.json("train", "--name", name, "--images", str(sample_pictures()), "--detach", *flags)
        return run


async def _wait_for(socket: Path, run: str, condition: Callable[[RunView], bool]) -> RunView:
    async with Client(socket) as client:
        state = await client.state()
        for view in state.runs:
            if view.id == run and condition(view):
                return view
        async for line in client.events(f"{state.boot_id}:{state.seq}"):
            if line.topic in ("run", "progress") and line.data.get("id") == run:
                view = RunView.model_validate(line.data)
                if condition(view):
                    return view
    raise AssertionError("the stream of events ended early")


async def _wait_for_words(socket: Path, condition: Callable[[set[str]], bool]) -> None:
    async with Client(socket) as client:
        state = await client.state()
        stream = client.events(f"{state.boot_id}:{state.seq}")
        while not condition({word.name for word in await client.words() if word.usable}):
            async for line in stream:
                if line.topic == "words":
                    break


def sample_pictures() -> Path:
    from engine.models.starter.sample import TRAIN_DIR

    return Path(TRAIN_DIR)


@contextmanager
def open_place(folder: Path) -> Iterator[Place]:
    """A fresh workspace in a folder; its service is stopped at the end, whatever happened."""
    place = Place(folder / "workspace")
    place.root.mkdir()
    try:
        yield place
    finally:
        place.vocable("daemon", "stop")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path) as place:
        yield place
