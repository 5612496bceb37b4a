"""The event hub by itself: numbering, replay, slow clients, gauges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from daemon.events import Hub
from engine.errors import VocableError

PATIENCE_S = 20.0


def quiet_hub(**options: Any) -> Hub:
    return Hub("boot", **{"heartbeat_s": 1000.0, "gauge_interval_s": 0.0, **options})


async def read(lines: AsyncIterator[bytes], count: int) -> list[dict[str, Any]]:
    """The next lines, without heartbeats; a chunk may hold several gauges."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            chunk = await anext(lines)
            parsed = [json.loads(line) for line in chunk.splitlines()]
            found += [line for line in parsed if line["type"] != "heartbeat"]
    return found


async def read_all(lines: AsyncIterator[bytes]) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE_S):
        parsed = [json.loads(line) async for chunk in lines for line in chunk.splitlines()]
    return [line for line in parsed if line["type"] != "heartbeat"]


def numbers(lines: list[dict[str, Any]]) -> list[int]:
    return [line["seq"] for line in lines if line["type"] == "fact"]


async def test_a_stream_begins_with_hello_and_goes_on_with_numbered_facts() -> None:
    hub = quiet_hub()
    hub.fact("run", {"id": "a"})
    async with aclosing(hub.lines("")) as lines:
        assert await read(lines, 1) == [{"type": "hello", "boot_id": "boot", "seq": 1, "oldest": 1}]
        hub.fact("run", {"id": "b"}, key="b")
        fact = {"type": "fact", "seq": 2, "topic": "run", "key": "b", "data": {"id": "b"}}
        assert await read(lines, 1) == [fact]


async def test_a_client_that_comes_back_gets_what_it_missed_once_and_in_order() -> None:
    hub = quiet_hub()
    for number in range(10):
        hub.fact("run", {"number": number})
    async with aclosing(hub.lines("boot:4")) as lines:
        assert numbers(await read(lines, 7)) == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("after", ["boot:2", "other:10", "boot:11"])
async def test_a_cursor_too_old_of_another_boot_or_from_the_future_means_reset(after: str) -> None:
    hub = quiet_hub(ring=5)
    for number in range(10):
        hub.fact("run", {"number": number})
    async with aclosing(hub.lines(after)) as lines:
        assert [line["type"] for line in await read(lines, 2)] == ["hello", "reset"]


async def test_the_oldest_fact_kept_can_still_be_reached() -> None:
    hub = quiet_hub(ring=5)
    for number in range(10):
        hub.fact("run", {"number": number})
    async with aclosing(hub.lines("boot:5")) as lines:
        assert numbers(await read(lines, 6)) == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("after", ["boot", ":1", "boot:", "boot:-1", "boot:1.5", "boot:" + "9" * 40, "boot:²"])
def test_what_is_no_cursor_is_refused(after: str) -> None:
    with pytest.raises(VocableError, match="BOOT_ID:SEQ"):
        quiet_hub().check_cursor(after)


async def test_a_snapshot_and_the_stream_after_it_miss_and_repeat_nothing() -> None:
    hub = quiet_hub(ring=5000, queue=5000)
    total = 0

    midway = asyncio.Event()

    async def publish() -> None:
        nonlocal total
        for number in range(1000):
            total += number
            hub.fact("run", {"add": number})
            if number == 300:
                midway.set()
            await asyncio.sleep(0)

    publishing = asyncio.create_task(publish())
    await midway.wait()
    snapshot, seq = total, hub.seq
    await asyncio.sleep(0)
    async with aclosing(hub.lines(f"boot:{seq}")) as lines:
        facts = (await read(lines, 1001 - seq))[1:]
    await publishing
    assert snapshot + sum(fact["data"]["add"] for fact in facts) == sum(range(1000))


async def test_a_client_that_cannot_keep_up_is_told_once_and_cut_off_while_others_see_everything() -> None:
    hub = quiet_hub(queue=10)
    slow, quick = hub.lines(""), hub.lines("")
    await read(slow, 1)
    await read(quick, 1)
    seen = []
    for number in range(30):
        hub.fact("run", {"number": number})
        seen += await read(quick, 1)
    assert numbers(seen) == list(range(1, 31))
    assert [line["type"] for line in await read_all(slow)] == ["lagged"]
    assert hub.streams == 1
    await quick.aclose()


async def test_gauges_are_the_newest_value_and_facts_are_not_lost_among_them() -> None:
    hub = quiet_hub()
    async with aclosing(hub.lines("")) as lines:
        await read(lines, 1)
        for number in range(5000):
            hub.gauge("progress", {"step": number}, key="a")
            if number % 1000 == 0:
                hub.fact("run", {"number": number})
        hub.gauge("progress", {"step": 1}, key="b")
        received = await read(lines, 7)
    assert numbers(received) == [1, 2, 3, 4, 5]
    assert [(line["key"], line["data"]["step"]) for line in received[5:]] == [("a", 4999), ("b", 1)]


async def test_a_fact_overtakes_the_gauge_of_the_same_key() -> None:
    hub = quiet_hub()
    async with aclosing(hub.lines("")) as lines:
        await read(lines, 1)
        hub.gauge("progress", {"state": "running"}, key="a")
        hub.fact("run", {"state": "finished"}, key="a")
        hub.close("done")
        assert [line["type"] for line in await read_all(lines)] == ["fact", "bye"]


async def test_gauges_come_no_more_often_than_the_interval() -> None:
    hub = quiet_hub(gauge_interval_s=1000.0)
    async with aclosing(hub.lines("")) as lines:
        await read(lines, 1)
        hub.gauge("progress", {"step": 1}, key="a")
        await read(lines, 1)
        hub.gauge("progress", {"step": 2}, key="a")
        hub.fact("words", {})
        assert [line["type"] for line in await read(lines, 1)] == ["fact"]


async def test_an_idle_stream_carries_heartbeats() -> None:
    hub = Hub("boot", heartbeat_s=0.01)
    async with aclosing(hub.lines("")) as lines, asyncio.timeout(PATIENCE_S):
        kinds = [json.loads(await anext(lines))["type"] for _ in range(4)]
    assert kinds == ["hello", "heartbeat", "heartbeat", "heartbeat"]


async def test_bye_comes_after_what_waits_and_also_to_those_who_come_late() -> None:
    hub = quiet_hub()
    lines = hub.lines("")
    await read(lines, 1)
    hub.fact("run", {})
    hub.close("the service stops")
    assert [line["type"] for line in await read_all(lines)] == ["fact", "bye"]
    assert [line["type"] for line in await read_all(hub.lines(""))] == ["hello", "bye"]


async def test_a_stream_that_is_left_is_forgotten() -> None:
    hub = quiet_hub()
    lines = hub.lines("")
    await read(lines, 1)
    assert hub.streams == 1
    await lines.aclose()
    assert hub.streams == 0
