"""The line to the service: connect, take a snapshot, follow the events, and try again for ever.

Pure asyncio, knows no screen. `app` runs one `Link` and gets everything through three callbacks, in order. After any
doubt (reset, lagged, a gap in the numbers) a new snapshot comes before the next line.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from daemon.protocol.service import HEARTBEAT_S, State, StreamLine
from engine.errors import VocableError

if TYPE_CHECKING:
    from daemon.client import Client

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
CONNECT_TIMEOUT_S = 5.0
"""For a connection and its first replies; a service on the same machine answers in milliseconds."""
SILENCE_TIMEOUT_S = 3 * HEARTBEAT_S

LinkWord = Literal["connecting", "connected", "lost", "absent", "version"]


@dataclass(frozen=True)
class LinkState:
    """How the line stands. Times are seconds of the link's clock."""

    word: LinkWord = "connecting"
    since: float = 0.0
    """Since when the line is connected, lost, absent or sought."""
    retry_at: float | None = None
    """When the next attempt begins, while one waits."""
    reason: str = ""
    """What the last error said, as a sentence, with what to do."""
    is_attempting: bool = False


class Link:
    """One line to one service, kept up by the task that runs `run`."""

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        on_state: Callable[[LinkState], object],
        on_snapshot: Callable[[State], object],
        on_line: Callable[[StreamLine], object],
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Args: `jitter` draws from 0 to 1 and keeps many screens from knocking at the same moment."""
        self.state = LinkState(since=clock(), is_attempting=True)
        self.client: Client | None = None
        """The open client, None while the line is down."""
        self._connect = connect
        self._on_state = on_state
        self._on_snapshot = on_snapshot
        self._on_line = on_line
        self._clock = clock
        self._jitter = jitter
        self._silence_timeout_s = silence_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._wake = asyncio.Event()
        self._failures = 0

    async def run(self) -> None:
        """Keep the line up until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._hold()
                error = VocableError("link.lost", "The service closed the line.")
            except VocableError as failure:
                error = failure
            finally:
                self.client = None
            delay_s = retry_delay(self._failures, self._jitter())
            self._failures += 1
            self._tell_down(error, self._clock() + delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()
            self._tell_attempt()

    def retry_now(self) -> None:
        """Begin the next attempt at once."""
        self._failures = 0
        self._wake.set()

    async def _hold(self) -> None:
        """Connect and follow until the line ends or fails."""
        async with contextlib.AsyncExitStack() as stack:
            async with _limit(self._connect_timeout_s, "The service does not answer."):
                client = await stack.enter_async_context(self._connect())
                await client.info()
                snapshot = await client.state()
            self.client = client
            while True:
                self._take(snapshot)
                if not await self._follow(client, snapshot):
                    return
                async with _limit(self._connect_timeout_s, "The service does not answer."):
                    snapshot = await client.state()

    def _take(self, snapshot: State) -> None:
        self._on_snapshot(snapshot)
        self._failures = 0
        if self.state.word != "connected":
            self._tell(LinkState("connected", self._clock()))

    async def _follow(self, client: Client, snapshot: State) -> bool:
        """Pass lines on. True when a new snapshot is needed, False when the line ended."""
        expected = snapshot.seq + 1
        # The client's iterator is an async generator, and must be closed as one to free its connection.
        events = cast("AsyncGenerator[StreamLine, None]", client.events(f"{snapshot.boot_id}:{snapshot.seq}"))
        async with aclosing(events) as stream:
            while True:
                async with _limit(self._silence_timeout_s, "The service has fallen silent."):
                    line = await anext(stream, None)
                if line is None:
                    return False
                if line.type == "bye":
                    raise VocableError("link.lost", f"The service stops: {line.reason or 'it was asked to'}.")
                is_foreign = line.type == "hello" and line.boot_id != snapshot.boot_id
                is_gap = line.type == "fact" and line.seq > expected
                if line.type in ("reset", "lagged") or is_foreign or is_gap:
                    return True
                if line.type == "fact":
                    if line.seq < expected:
                        continue
                    expected = line.seq + 1
                if line.type in ("fact", "gauge"):
                    self._on_line(line)

    def _tell_down(self, error: VocableError, retry_at: float) -> None:
        word: LinkWord = "version" if error.code == "link.version" else "lost"
        if error.code == "link.absent" and self.state.word not in ("connected", "lost"):
            word = "absent"
        reason = f"{error.title} {error.hint}".strip()
        if error.code == "link.absent":
            reason = "The daemon is not running. S starts it."
        elif word == "lost":
            reason = f"{error.title} Runs go on as long as the daemon lives."
        since = self.state.since if self.state.word == word else self._clock()
        self._tell(LinkState(word, since, retry_at, reason))

    def _tell_attempt(self) -> None:
        """A first connection is `connecting`; later attempts keep saying what is the matter."""
        self._tell(LinkState(self.state.word, self.state.since, None, self.state.reason, is_attempting=True))

    def _tell(self, state: LinkState) -> None:
        self.state = state
        self._on_state(state)


def retry_delay(failures: int, jitter: float) -> float:
    """Seconds before the next attempt: doubling from 0.5 to 15, of which up to a fifth is left out by `jitter`."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 10)) * (1 - 0.2 * jitter)


def describe_link(state: LinkState, now: float) -> str:
    """The state of the line in words, short enough for half a line."""
    waited = max(0, int(now - state.since))
    match state.word:
        case "connected":
            return "connected"
        case "connecting":
            return f"connecting {waited} s"
        case "absent":
            return "daemon not running (S = start it)"
        case "version":
            return "wrong version"
        case "lost":
            if state.retry_at is None:
                return f"lost {waited} s ago, trying"
            return f"lost {waited} s ago, retry in {max(0, round(state.retry_at - now))} s (r = now)"


@contextlib.asynccontextmanager
async def _limit(timeout_s: float, title: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise VocableError("link.lost", title) from None
