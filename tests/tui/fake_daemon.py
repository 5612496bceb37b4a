"""A service that does as it is told: real HTTP on a real Unix socket, with every fault a line can have.

Tests start it on their own event loop, or as a process (`python -m tests.tui.fake_daemon SOCKET`) where a real terminal
is needed. It keeps runs in memory and teaches nobody anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.protocol.runs import LossPoint, LossSeries, RunView
from daemon.protocol.service import ServerInfo, State, WorkerView
from daemon.protocol.words import TokensReply
from engine.recipe import build_recipe

NOW = 1_800_000_000.0
"""The moment at which the fake world stands still."""

LEADS_TO = {"pause": "paused", "resume": "queued", "stop": "stopped"}


@dataclass(eq=False)
class FakeDaemon:
    """The state of the fake service, and the switches that make it misbehave."""

    socket: Path
    runs: dict[str, RunView] = field(default_factory=dict)
    losses: dict[str, list[LossPoint]] = field(default_factory=dict)
    worker: WorkerView = field(default_factory=lambda: WorkerView(state="idle", device="cpu"))
    problem: str = ""
    api: int = 1
    """The version it claims to speak."""
    boot_id: str = "boot1"
    is_stalling: bool = False
    """Accepts requests and never answers."""
    refusal: dict[str, Any] | None = None
    """What to answer to the next requests that change something, in place of doing it."""
    drops_commands: bool = False
    """Does what it is asked, and breaks the line before the answer."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Accepted recipes by the idempotency key they came with."""
    seq: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _streams: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _followed: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket))

    async def die(self) -> None:
        """Go away without a word, like a process that was killed."""
        self.socket.unlink(missing_ok=True)
        self._followed.clear()
        # A connection that was just accepted gets its transport and its task a few turns later; asyncio loses it
        # when the server is closed before that.
        for _ in range(10):
            await asyncio.sleep(0)
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def drop(self) -> None:
        """Break every open connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def add(self, run: RunView) -> None:
        self.runs[run.id] = run

    def change(self, run_id: str, **values: Any) -> None:
        """Change a run and publish it as a fact."""
        self.runs[run_id] = self.runs[run_id].model_copy(update=values)
        self.fact("run", self.runs[run_id].model_dump(mode="json"))

    def progress(self, run_id: str, **values: Any) -> None:
        """Change a run and publish it as a gauge."""
        self.runs[run_id] = self.runs[run_id].model_copy(update=values)
        self.send(type="gauge", topic="progress", key=run_id, data=self.runs[run_id].model_dump(mode="json"))

    def fact(self, topic: str, data: dict[str, Any]) -> None:
        self.seq += 1
        self.send(type="fact", seq=self.seq, topic=topic, data=data)

    def send(self, **line: Any) -> None:
        """Put a line into every event stream."""
        for writer in list(self._streams):
            _write_chunk(writer, json.dumps(line).encode() + b"\n")

    async def wait_for_stream(self) -> None:
        """Wait until somebody follows the events."""
        async with asyncio.timeout(20):
            await self._followed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target, headers = _parse_head(head)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((method, target))
                if self.is_stalling:
                    await reader.read()
                if target.startswith("/v1/events"):
                    await self._stream(reader, writer)
                    return
                status, reply = self._answer(method, target, headers, body)
                if self.drops_commands and method == "POST":
                    writer.transport.abort()
                    return
                _write_reply(writer, status, reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._writers.discard(writer)
            self._streams.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
        hello = {"type": "hello", "boot_id": self.boot_id, "seq": self.seq, "oldest": 0}
        _write_chunk(writer, json.dumps(hello).encode() + b"\n")
        self._streams.add(writer)
        self._followed.set()
        await reader.read()

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        path, _, query = target.partition("?")
        if method == "POST" and self.refusal is not None:
            return 422, {"error": self.refusal}
        match [method, *path.strip("/").split("/")[1:]]:
            case ["GET"]:
                info = ServerInfo(
                    api=self.api, daemon="0.1.0", boot_id=self.boot_id, pid=1, workspace="/w", socket=str(self.socket)
                )
                return 200, info.model_dump(mode="json")
            case ["GET", "state"]:
                return 200, self._state().model_dump(mode="json")
            case ["GET", "models"]:
                return 200, {"models": []}
            case ["GET", "runs", run_id, "losses"]:
                count = int(query.removeprefix("points="))
                points = self.losses.get(run_id, [])
                return 200, LossSeries(id=run_id, points=points[:count]).model_dump(mode="json")
            case ["POST", "tokens"]:
                return 200, _count_blanks(json.loads(body))
            case ["POST", "runs"]:
                return self._create(json.loads(body)["recipe"], headers.get("idempotency-key", ""))
            case ["POST", "runs", run_id, command]:
                self.change(run_id, state=LEADS_TO[command], phase="")
                return 200, self.runs[run_id].model_dump(mode="json")
        return 404, {"error": {"code": "request.unknown", "title": f"No route {path}.", "hint": ""}}

    def _create(self, values: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        if key not in self.recipes:
            recipe = build_recipe(values)
            self.recipes[key] = values
            run_id = f"new{len(self.recipes):03}"
            self.add(make_run(run_id, recipe.name, state="queued", steps=recipe.train.steps, phase=""))
            self.fact("run", self.runs[run_id].model_dump(mode="json"))
        run_id = f"new{list(self.recipes).index(key) + 1:03}"
        return 202, self.runs[run_id].model_dump(mode="json")

    def _state(self) -> State:
        runs = list(self.runs.values())
        return State(boot_id=self.boot_id, seq=self.seq, runs=runs, words=[], worker=self.worker, problem=self.problem)


def _count_blanks(request: dict[str, Any]) -> dict[str, Any]:
    """Tokens as this service sees them: what stands between blanks; a new word counts with its vectors."""
    known = request["new_words"]
    found = [part for part in request["prompt"].split() if part in known]
    count = sum(known.get(part, 1) for part in request["prompt"].split())
    reply = TokensReply(model="starter", count=count, limit=75, chunks=[count], words=found)
    return reply.model_dump(mode="json")


def make_run(run_id: str, name: str, **values: Any) -> RunView:
    """A run in the middle of its work, unless `values` say otherwise."""
    usual: dict[str, Any] = {
        "model": "starter",
        "state": "running",
        "phase": "training",
        "steps": 500,
        "folder": f"/w/runs/2026-11-22/{name}-{run_id}",
        "created_at": NOW - 600,
    }
    return RunView.model_validate({"id": run_id, "name": name, **usual, **values})


def make_losses(steps: int, buckets: int, seed: int = 7) -> list[LossPoint]:
    """A loss that falls and scatters, as losses do."""
    draw = random.Random(seed)
    points = []
    for number in range(1, min(buckets, steps) + 1):
        step = number * steps // min(buckets, steps)
        mean = (0.09 + 0.08 * math.exp(-step / 120)) * draw.uniform(0.75, 1.3)
        points.append(LossPoint(step=step, mean=mean, low=mean * 0.8, high=mean * 1.2))
    return points


def fill_with_examples(daemon: FakeDaemon, preview: str = "") -> None:
    """A believable afternoon: one run at work, one paused, one waiting, three over."""
    daemon.worker = WorkerView(pid=4321, state="busy", device="cpu", model="starter")
    daemon.add(
        make_run(
            "k3x9ab",
            "sunny-girl",
            step=240,
            loss=0.1184,
            mean_loss=0.1031,
            learn_rate=0.005,
            steps_per_second=3.42,
            seconds_left=76,
            prompt="a portrait of sunny-girl, girl with blue twintails, red eyes, bunny ears, pink background",
            preview=preview,
            preview_step=200,
            started_at=NOW - 70,
        )
    )
    daemon.add(make_run("p7d2mm", "my grandmother's cat", state="paused", phase="", step=1200, steps=3000))
    daemon.add(make_run("q0w4zt", "watercolour", state="queued", phase="", steps=2000))
    error = {
        "code": "dataset.empty",
        "title": "The folder /data/hats holds no pictures.",
        "hint": "Put some pictures into it and resume the run.",
    }
    daemon.add(make_run("f5h8rr", "hat", state="failed", phase="", error=error, ended_at=NOW - 1000))
    finished = {"state": "finished", "phase": "", "step": 500, "ended_at": NOW - 5000, "loss": 0.09, "mean_loss": 0.087}
    daemon.add(make_run("d1s3pp", "red-fox", embedding="/w/embeddings/red-fox.safetensors", **finished))
    daemon.add(make_run("a6b6cc", "blue fox", **{**finished, "state": "stopped", "step": 350, "ended_at": NOW - 9000}))
    daemon.losses["k3x9ab"] = make_losses(240, 160)
    daemon.losses["d1s3pp"] = make_losses(500, 160)
    daemon.losses["a6b6cc"] = make_losses(350, 160)


@contextlib.asynccontextmanager
async def running_daemon(socket: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(socket)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.die()


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode().rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return method, target, {name.lower(): value.strip() for name, _, value in pairs}


def _write_reply(writer: asyncio.StreamWriter, status: int, reply: dict[str, Any]) -> None:
    body = json.dumps(reply).encode()
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.transport.is_closing():
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


async def _live(daemon: FakeDaemon, steps_per_second: float) -> None:
    """Let the running run go on until it is finished."""
    draw = random.Random(3)
    while True:
        await asyncio.sleep(0.25)
        run = daemon.runs["k3x9ab"]
        if run.state != "running":
            continue
        step = min(run.steps, run.step + max(1, round(steps_per_second / 4)))
        points = daemon.losses["k3x9ab"]
        mean = (0.09 + 0.08 * math.exp(-step / 120)) * draw.uniform(0.75, 1.3)
        points.append(LossPoint(step=step, mean=mean, low=mean, high=mean))
        left = (run.steps - step) / steps_per_second
        daemon.progress("k3x9ab", step=step, loss=mean, seconds_left=left, steps_per_second=steps_per_second)
        if step == run.steps:
            daemon.change("k3x9ab", state="finished", phase="", embedding="/w/embeddings/sunny-girl.safetensors")


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("--preview", default="")
    parser.add_argument("--empty", action="store_true")
    parser.add_argument("--speed", type=float, default=0.0)
    arguments = parser.parse_args()
    async with running_daemon(arguments.socket) as daemon:
        if not arguments.empty:
            fill_with_examples(daemon, arguments.preview)
        if arguments.speed:
            await _live(daemon, arguments.speed)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
