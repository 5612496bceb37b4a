from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from daemon.client import Client, socket_for
from daemon.paths import Workspace
from daemon.protocol.service import State, StreamLine
from tests.tui.conftest import TIMEOUT_S
from tests.tui.fake_daemon import FakeDaemon, make_run
from tui.link import LONGEST_DELAY_S, Link, LinkState, describe_link, retry_delay


@dataclass
class Witness:
    """Everything a link told, in order."""

    link: Link
    told: list[LinkState | State | StreamLine] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, what: LinkState | State | StreamLine) -> None:
        self.told.append(what)
        self.news.set()

    def words(self) -> list[str]:
        """The words the link went through, repetitions left out."""
        words = [what.word for what in self.told if isinstance(what, LinkState)]
        return [word for at, word in enumerate(words) if at == 0 or words[at - 1] != word]

    def snapshots(self) -> int:
        return sum(isinstance(what, State) for what in self.told)

    def steps(self) -> list[int]:
        return [int(what.data["step"]) for what in self.told if isinstance(what, StreamLine)]

    async def wait(self, condition: Callable[[Witness], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition(self):
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def linked(workspace: Workspace, silence_timeout_s: float = TIMEOUT_S) -> AsyncIterator[Witness]:
    witness: Witness
    link = Link(
        lambda: Client(socket_for(workspace)),
        on_state=lambda state: witness.note(state),
        on_snapshot=lambda state: witness.note(state),
        on_line=lambda line: witness.note(line),
        jitter=lambda: 0.0,
        silence_timeout_s=silence_timeout_s,
        connect_timeout_s=silence_timeout_s,
    )
    witness = Witness(link)
    task = asyncio.create_task(link.run())
    try:
        yield witness
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_snapshot_comes_first_and_then_the_lines(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat", step=1))
    async with linked(workspace) as witness:
        await witness.wait(lambda w: w.words() == ["connected"])
        await daemon.wait_for_stream()
        daemon.progress("a", step=2)
        daemon.change("a", step=3)
        await witness.wait(lambda w: w.steps() == [2, 3])
        assert isinstance(witness.told[0], State)


async def test_without_a_service_the_reason_is_said_and_one_that_starts_later_is_found(workspace: Workspace) -> None:
    async with linked(workspace) as witness:
        await witness.wait(lambda w: w.words() == ["absent"])
        assert "not running" in witness.link.state.reason
        daemon = FakeDaemon(socket_for(workspace))
        await daemon.start()
        try:
            await witness.wait(lambda w: w.words()[-1] == "connected")
        finally:
            await daemon.die()


async def test_a_service_that_dies_is_lost_and_found_again(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with linked(workspace) as witness:
        await witness.wait(lambda w: w.words() == ["connected"])
        await daemon.die()
        await witness.wait(lambda w: w.words()[-1] == "lost")
        assert witness.link.client is None
        daemon.boot_id = "boot2"
        await daemon.start()
        witness.link.retry_now()
        await witness.wait(lambda w: w.words() == ["connected", "lost", "connected"])
        assert witness.snapshots() == 2


async def test_retrying_now_does_not_wait_for_the_delay(workspace: Workspace, daemon: FakeDaemon) -> None:
    await daemon.die()
    async with linked(workspace) as witness:
        # Three failures: the next attempt would begin four seconds later.
        await witness.wait(lambda w: sum(state.retry_at is not None for state in w.told) == 4)
        await daemon.start()
        witness.link.retry_now()
        async with asyncio.timeout(3):
            await witness.wait(lambda w: w.words()[-1] == "connected")


@pytest.mark.parametrize("doubt", ["reset", "lagged"])
async def test_doubt_leads_to_a_new_snapshot_without_losing_the_line(
    workspace: Workspace, daemon: FakeDaemon, doubt: str
) -> None:
    async with linked(workspace) as witness:
        await witness.wait(lambda w: w.words() == ["connected"])
        await daemon.wait_for_stream()
        daemon.send(type=doubt, boot_id=daemon.boot_id, seq=daemon.seq)
        await witness.wait(lambda w: w.snapshots() == 2)
        assert witness.words() == ["connected"]


async def test_a_gap_in_the_numbers_leads_to_a_new_snapshot(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.add(make_run("a", "cat", step=1))
    async with linked(workspace) as witness:
        await witness.wait(lambda w: w.words() == ["connected"])
        await daemon.wait_for_stream()
        daemon.seq += 1
        daemon.change("a", step=3)
        await witness.wait(lambda w: w.snapshots() == 2)
        assert witness.steps() == []


async def test_a_silent_service_counts_as_lost(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with linked(workspace, silence_timeout_s=0.3) as witness:
        await witness.wait(lambda w: w.words()[:2] == ["connected", "lost"])


async def test_a_service_that_accepts_and_never_answers_is_given_up(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.is_stalling = True
    async with linked(workspace, silence_timeout_s=0.3) as witness:
        await witness.wait(lambda w: w.words() == ["lost"])
        assert "does not answer" in witness.link.state.reason


async def test_another_version_is_said_in_words(workspace: Workspace, daemon: FakeDaemon) -> None:
    daemon.api = 2
    async with linked(workspace) as witness:
        await witness.wait(lambda w: w.words() == ["version"])
        assert "version 2" in witness.link.state.reason
        assert "vocable daemon stop" in witness.link.state.reason


async def test_a_service_that_says_goodbye_is_lost_with_its_reason(workspace: Workspace, daemon: FakeDaemon) -> None:
    async with linked(workspace) as witness:
        await witness.wait(lambda w: w.words() == ["connected"])
        await daemon.wait_for_stream()
        daemon.send(type="bye", reason="the machine shuts down")
        await witness.wait(lambda w: w.words()[:2] == ["connected", "lost"])
        lost = next(what for what in witness.told if isinstance(what, LinkState) and what.word == "lost")
        assert "the machine shuts down" in lost.reason


def test_delays_double_up_to_a_quarter_of_a_minute_and_jitter_shortens_them() -> None:
    delays = [retry_delay(failures, 0.0) for failures in range(8)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert retry_delay(3, 1.0) == pytest.approx(3.2)
    assert retry_delay(100_000, 0.0) == LONGEST_DELAY_S


def test_the_state_is_said_in_words_that_fit_half_a_line() -> None:
    now = 1000.0
    said = {
        describe_link(LinkState("connecting", now - 3), now),
        describe_link(LinkState("connected", now - 3), now),
        describe_link(LinkState("lost", now - 12, now + 4), now),
        describe_link(LinkState("lost", now - 12, None, is_attempting=True), now),
        describe_link(LinkState("absent", now), now),
        describe_link(LinkState("version", now), now),
    }
    assert said == {
        "connecting 3 s",
        "connected",
        "lost 12 s ago, retry in 4 s (r = now)",
        "lost 12 s ago, trying",
        "daemon not running (S = start it)",
        "wrong version",
    }
