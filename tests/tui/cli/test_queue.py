"""The queue from the command line, against a real service that has no worker to give runs to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.paths import Workspace
from tests.daemon.conftest import Running, make_model, serving


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    make_model(workspace.models / "tiny")
    (workspace.datasets / "faces").mkdir()
    (workspace.datasets / "faces" / "one.png").write_bytes(b"nothing decodes this before the worker")
    async with serving(workspace, backoff=lambda crashes: 0.0) as running:
        yield running


async def vocable(running: Running, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run the command line as a program of its own; return what it wrote to stdout and to stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tui", "--workspace", str(running.workspace.root), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return out.decode(), err.decode()


async def fill(running: Running) -> None:
    for name in ("now", "first", "second", "third"):
        run = await running.train(name)
        if name == "now":
            await (await running.crew.worker()).told("train", run=run.id)


async def test_a_run_is_moved_and_the_queue_shows_it(running: Running) -> None:
    await fill(running)
    _, said = await vocable(running, "move", "third", "--first")
    assert "is number 1 of 3 in the queue" in said
    await vocable(running, "move", "first", "--last")
    await vocable(running, "move", "first", "--before", "second")
    shown, _ = await vocable(running, "queue")
    assert [line.split()[0::2] for line in shown.splitlines()[1:]] == [["1", "third"], ["2", "first"], ["3", "second"]]
    order = json.loads((await vocable(running, "queue", "--json"))[0])["order"]
    assert order == [(await running.client.run(name)).id for name in ("third", "first", "second")]


@pytest.mark.parametrize("places", [(), ("--first", "--last"), ("--last", "--before", "x")])
async def test_a_move_needs_exactly_one_place(running: Running, places: tuple[str, ...]) -> None:
    assert "Give one place" in (await vocable(running, "move", "x", *places, code=2))[1]


async def test_a_paused_queue_says_why_and_goes_on_when_resumed(running: Running) -> None:
    run = await running.train("fatal")
    for number in range(1, 6):
        worker = await running.crew.worker(number)
        await worker.told("train", run=run.id)
        worker.die(step=number)
    await running.until_state(run.id, "queued")
    _, said = await vocable(running, "queue")
    assert "The queue is paused. The worker was lost 5 times" in said
    assert f"vocable --workspace {running.workspace.root} queue resume" in said
    assert "The queue runs." in (await vocable(running, "queue", "resume"))[1]
    await (await running.crew.worker(6)).told("train", run=run.id)
