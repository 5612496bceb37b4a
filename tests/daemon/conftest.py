"""A real service on a real socket with a real history; its worker is a stand-in that the test speaks for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from daemon.client import Client
from daemon.keeper import Message
from daemon.lock import take_lock
from daemon.paths import Workspace
from daemon.protocol.runs import RunView
from daemon.protocol.service import StreamLine
from daemon.server import serve
from daemon.settings import Settings
from daemon.worker.board import Mark
from daemon.worker.exits import ExitKind, WorkerExit

PATIENCE_S = 30.0
"""Only a hang takes this long."""


class StandIn:
    """A worker with the surface of `daemon.worker.supervise.Worker` and no process."""

    def __init__(self, on_message: Callable[[Message], None], on_exit: Callable[[WorkerExit], None]) -> None:
        self.pid: int | None = None
        self.settings: Message = {}
        self.sent: list[Message] = []
        self.obeys = True
        """Whether it leaves, and pauses its run, when asked."""
        self._say, self._exit = on_message, on_exit
        self._news = asyncio.Event()

    async def start(self, settings: Message) -> None:
        self.pid, self.settings = 4_000_000, settings
        self._say({"type": "ready", "device": "cpu"})

    def send(self, message: Message) -> None:
        self.sent.append(message)
        self._news.set()
        if self.obeys and message["do"] == "pause":
            self.tell(message["run"], event="ended", outcome="paused", step=7, embedding="")

    async def stop(self, *, timeout_s: float) -> None:
        if self.pid is not None and not self.obeys:
            await asyncio.sleep(timeout_s)
        self._leave(WorkerExit("asked", 0, "The worker ended as it was told to."))

    def kill(self) -> None:
        self._leave(WorkerExit("asked", 9, "The worker ended as it was told to."))

    def die(self, kind: ExitKind = "killed", phase: str = "step", step: int | None = None) -> None:
        self._leave(WorkerExit(kind, 9, f"The worker was lost ({kind}).", "", Mark(phase, step, 1)))

    def wedge(self) -> None:
        """Hang where no signal reaches it; `die` ends it after all."""
        self._exit(WorkerExit("wedged", 9, "The worker cannot be killed."))

    def say(self, **message: Any) -> None:
        self._say(message)

    def tell(self, run: str, **event: Any) -> None:
        """Report an event of training."""
        self._say({"type": "event", "run": run, "event": event})

    def step(self, run: str, *steps: int, of: int = 100) -> None:
        losses = [{"step": step, "loss": 1 / step, "learn_rate": 0.005} for step in steps]
        self.tell(
            run,
            event="progress",
            step=steps[-1],
            steps=of,
            losses=losses,
            mean_loss=0.5,
            learn_rate=0.005,
            steps_per_second=10.0,
            prompt="a photo of it",
        )

    async def told(self, do: str, **values: Any) -> Message:
        """The first message of this kind, with these values, that the worker was sent."""
        wanted = {"do": do, **values}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for message in self.sent:
                    if wanted.items() <= message.items():
                        return message
                self._news.clear()
                await self._news.wait()

    def _leave(self, end: WorkerExit) -> None:
        if self.pid is not None:
            self.pid = None
            self._exit(end)


class Crew:
    """The workers that a service made, one after the other."""

    def __init__(self) -> None:
        self.workers: list[StandIn] = []
        self._news = asyncio.Event()

    def hire(self, on_message: Callable[[Message], None], on_exit: Callable[[WorkerExit], None]) -> StandIn:
        self.workers.append(StandIn(on_message, on_exit))
        self._news.set()
        return self.workers[-1]

    async def worker(self, number: int = 1) -> StandIn:
        """The worker with this number, from 1, once it was made."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.workers) < number:
                self._news.clear()
                await self._news.wait()
        return self.workers[number - 1]


class Running:
    """A service that answers, with a client of it."""

    def __init__(self, workspace: Workspace, client: Client, crew: Crew, task: asyncio.Task[None]) -> None:
        self.workspace = workspace
        self.client = client
        self.crew = crew
        self.task = task

    async def train(self, name: str = "word", **changes: Any) -> RunView:
        return await self.client.create_run(recipe(self.workspace, name, **changes))

    async def stop(self) -> None:
        """End the service from inside, for a test that took its client away."""
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE_S)

    async def until(self, run: str, condition: Callable[[RunView], Any]) -> RunView:
        """The run's view as soon as it meets `condition`."""

        def find(line: StreamLine) -> RunView | None:
            if line.topic not in ("run", "progress") or line.data["id"] != run:
                return None
            view = RunView.model_validate(line.data)
            return view if condition(view) else None

        async with asyncio.timeout(PATIENCE_S):
            # The stream first: a gauge that is sent between a snapshot and a stream is in neither.
            stream = self.client.events()
            await anext(stream)
            for view in (await self.client.state()).runs:
                if view.id == run and condition(view):
                    return view
            async for line in stream:
                found = find(line)
                if found:
                    return found
        raise AssertionError("the stream ended")

    async def until_watched(self) -> dict[str, dict[str, Any]]:
        """How the folders are watched once each took its first look; the looks begin after the service answers."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                folders = (await self.client.state()).folders
                if all(health["last_scan"] for health in folders.values()):
                    return folders
                await asyncio.sleep(0.01)

    async def until_state(self, run: str, state: str) -> RunView:
        return await self.until(run, lambda view: view.state == state)


@asynccontextmanager
async def serving(workspace: Workspace, crew: Crew | None = None, **options: Any) -> AsyncIterator[Running]:
    """Serve `workspace` in this process until the block ends, and check that the service ends too."""
    crew = crew or Crew()
    workspace.create()
    lock = take_lock(workspace.lock)
    ready = asyncio.Event()
    settings = options.pop("settings", Settings())
    path = options.pop("path", workspace.state / "vocable.sock")
    options = {"backoff": lambda crashes: 0.0, "checkpoint_timeout_s": 0.5, "make_worker": crew.hire, **options}
    task = asyncio.create_task(serve(workspace, settings, lock, environ={}, on_ready=ready.set, **options))
    try:
        async with asyncio.timeout(PATIENCE_S):
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done():
                await task
        async with Client(path) as client:
            yield Running(workspace, client, crew, task)
            if not task.done():
                await client.shutdown()
        await asyncio.wait_for(task, PATIENCE_S)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        lock.release()


@asynccontextmanager
async def open_http(running: Running) -> AsyncIterator[httpx2.AsyncClient]:
    """Plain HTTP to a service, for what its client would not send."""
    transport = httpx2.AsyncHTTPTransport(uds=str(running.client.socket))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=PATIENCE_S) as http:
        yield http


@pytest.fixture(autouse=True)
def undeclared() -> Iterator[None]:
    """No test of the service makes a route answer with an error code that it does not declare."""
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("daemon.api.routes")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert seen == []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with a model and a dataset that are whole enough for everything before the worker."""
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    make_model(workspace.models / "tiny")
    dataset = workspace.datasets / "faces"
    dataset.mkdir()
    (dataset / "one.png").write_bytes(b"nothing decodes this before the worker")
    return workspace


@pytest.fixture
async def running(workspace: Workspace) -> AsyncIterator[Running]:
    async with serving(workspace) as running:
        yield running


def recipe(workspace: Workspace, name: str = "word", **changes: Any) -> dict[str, Any]:
    return {"name": name, "model": "tiny", "data": {"folder": "faces"}, "train": {"steps": 100}, **changes}


def make_model(folder: Path) -> None:
    """A model folder that the catalogue accepts; its weights are never loaded."""
    configs = {
        "text_encoder/config.json": {"hidden_size": 32},
        "unet/config.json": {"sample_size": 8, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 32},
        "vae/config.json": {"block_out_channels": [8, 8], "latent_channels": 4},
        "scheduler/scheduler_config.json": {},
        "text_encoder/model.safetensors": None,
        "unet/diffusion_pytorch_model.safetensors": None,
        "vae/diffusion_pytorch_model.safetensors": None,
        "model_index.json": {},
    }
    for name, values in configs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights" if values is None else json.dumps(values))
