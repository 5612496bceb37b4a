"""What clients see of a run is in the history already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from daemon.history import History
from daemon.runs import Run
from tests.daemon.conftest import PATIENCE_S, Running


async def test_a_state_is_seen_only_once_it_is_in_the_history(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.train("first")
    run = await running.train("second")
    save, reached, may_save = History.save, asyncio.Event(), asyncio.Event()

    async def save_later(history: History, runs: Sequence[Run]) -> None:
        if any(saved.id == run.id for saved in runs):
            reached.set()
            await may_save.wait()
        await save(history, runs)

    async def states() -> set[str]:
        """As the list, the run itself and the state of the service have it."""
        snapshot = [
            *await running.client.runs(),
            await running.client.run(run.id),
            *(await running.client.state()).runs,
        ]
        return {view.state for view in snapshot if view.id == run.id}

    monkeypatch.setattr(History, "save", save_later)
    async with asyncio.timeout(PATIENCE_S):
        pause = asyncio.create_task(running.client.command(run.id, "pause"))
        await reached.wait()
        assert await states() == {"queued"}
        may_save.set()
        assert (await pause).state == "paused"
    assert await states() == {"paused"}
