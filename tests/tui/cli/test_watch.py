"""Watching a run over the event stream, whatever the stream does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.client import Client
from engine.errors import VocableError
from tests.tui.fake_daemon import FakeDaemon, make_run, running_daemon
from tui.cli.follow import watch_run


async def watch(tmp_path: Path, act: Callable[[FakeDaemon], None]) -> list[tuple[int, str]]:
    """Step and state of each view of a run; `act` is called as soon as the stream is open."""
    async with running_daemon(tmp_path / "s.sock") as service, Client(service.socket) as client:
        service.add(make_run("other1", "other"))
        service.add(make_run("k3x9ab", "zara", step=1))
        acting = asyncio.create_task(_act_once_streaming(service, act))
        try:
            return [(view.step, view.state) async for view in watch_run(client, "k3x9ab")]
        finally:
            await acting


async def _act_once_streaming(service: FakeDaemon, act: Callable[[FakeDaemon], None]) -> None:
    await service.wait_for_stream()
    act(service)


async def test_views_come_until_the_run_has_ended(tmp_path: Path) -> None:
    def live(service: FakeDaemon) -> None:
        service.progress("k3x9ab", step=2)
        service.change("other1", state="failed")
        service.send(type="heartbeat")
        service.change("k3x9ab", step=3, state="finished")

    assert await watch(tmp_path, live) == [(1, "running"), (2, "running"), (3, "finished")]


@pytest.mark.parametrize("line", ["reset", "lagged"])
async def test_a_stream_that_lost_its_thread_leads_to_the_state_of_now(tmp_path: Path, line: str) -> None:
    def restart(service: FakeDaemon) -> None:
        service.add(service.runs["k3x9ab"].model_copy(update={"step": 7, "state": "stopped"}))
        service.send(type=line)

    assert await watch(tmp_path, restart) == [(1, "running"), (7, "stopped")]


async def test_a_goodbye_is_told_with_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(VocableError, match="vocable follow k3x9ab") as caught:
        await watch(tmp_path, lambda service: service.send(type="bye", reason="stopped"))
    assert caught.value.code == "service.stopped"


async def test_a_service_that_dies_is_a_lost_link(tmp_path: Path) -> None:
    with pytest.raises(VocableError) as caught:
        await watch(tmp_path, lambda service: service.drop())
    assert caught.value.code == "link.lost"


async def test_a_run_that_has_ended_gives_one_view(tmp_path: Path) -> None:
    async with running_daemon(tmp_path / "s.sock") as service, Client(service.socket) as client:
        service.add(make_run("d1s3pp", "done", state="finished"))
        assert [view.id async for view in watch_run(client, "d1s3pp")] == ["d1s3pp"]
