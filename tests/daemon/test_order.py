"""The order of the queue, as clients see it, change it, and find it again."""

from __future__ import annotations

import pytest

from daemon.paths import Workspace
from daemon.protocol.runs import MoveRun
from engine.errors import VocableError
from tests.daemon.conftest import Running, serving

FIRST, LAST = MoveRun(place="first"), MoveRun(place="last")


async def fill(running: Running) -> list[str]:
    """A run that the worker has, and the four that wait behind it."""
    names = ("now", "a", "b", "c", "d")
    runs = [(await running.train(name)).id for name in names]
    await (await running.crew.worker()).told("train", run=runs[0])
    await running.until_state(runs[0], "running")
    return runs


async def names(running: Running) -> str:
    order = (await running.client.queue()).order
    return "".join([(await running.client.run(run)).name for run in order])


@pytest.mark.parametrize(
    ("moved", "request_", "order"),
    [
        (3, FIRST, "cabd"),
        (1, LAST, "bcda"),
        (4, MoveRun(before="b"), "adbc"),
        (1, MoveRun(before="d"), "bcad"),
        (2, MoveRun(before="b"), "abcd"),
        (2, MoveRun(before="c"), "abcd"),
        (1, FIRST, "abcd"),
    ],
)
async def test_a_queued_run_goes_where_it_is_put(running: Running, moved: int, request_: MoveRun, order: str) -> None:
    runs = await fill(running)
    assert (await running.client.move(runs[moved], request_)).state == "queued"
    assert await names(running) == order
    assert [run.name for run in await running.client.runs()] == ["now", *order]
    assert (await running.client.move(runs[moved], request_)).state == "queued"
    assert await names(running) == order


async def test_the_next_run_is_the_one_that_was_put_first(running: Running) -> None:
    runs = await fill(running)
    await running.client.move(runs[4], FIRST)
    worker = await running.crew.worker()
    worker.tell(runs[0], event="ended", outcome="stopped", step=0, embedding="")
    await worker.told("train", run=runs[4])


async def test_an_order_is_the_same_after_a_restart(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        runs = await fill(running)
        for moved in (3, 1, 4, 2) * 20:
            await running.client.move(runs[moved], FIRST)
        await running.client.move(runs[1], MoveRun(before=runs[4]))
        before = await names(running)
    async with serving(workspace) as running:
        await running.until_state(runs[0], "running")
        assert (before, await names(running)) == ("badc", "badc")


async def test_only_queued_runs_have_a_place(running: Running) -> None:
    runs = await fill(running)
    await running.client.command(runs[2], "pause")
    for moved, request in ((runs[0], FIRST), (runs[2], LAST), (runs[1], MoveRun(before=runs[0]))):
        with pytest.raises(VocableError, match="only a queued run has a place in the queue") as caught:
            await running.client.move(moved, request)
        assert caught.value.code == "run.state"
    with pytest.raises(VocableError, match="There is no run 'nobody'"):
        await running.client.move(runs[1], MoveRun(before="nobody"))


@pytest.mark.parametrize("body", [{}, {"place": "first", "before": "x"}, {"place": "middle"}, {"position": 1}])
async def test_a_move_without_one_place_is_refused(running: Running, body: dict) -> None:
    runs = await fill(running)
    response = await running.client._http.post(f"/v1/runs/{runs[1]}/move", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "request.fields")


async def test_a_new_order_is_told_to_all_who_follow(running: Running) -> None:
    runs = await fill(running)
    state = await running.client.state()
    await running.client.move(runs[4], FIRST)
    async for line in running.client.events(f"{state.boot_id}:{state.seq}"):
        if line.topic == "queue" and line.data["order"][0] == runs[4]:
            break
