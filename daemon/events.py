"""The event stream: facts are numbered, kept and queued for each client; gauges are newest values only.

The hub lives on the event loop and publishing never waits for anybody: a client that cannot keep up is told so and
cut off, and reads the state again. A cursor is `BOOT_ID:SEQ`; within one boot numbers never repeat or skip.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from daemon.protocol.service import HEARTBEAT_S
from daemon.waiting import wait_at_most
from engine.errors import VocableError

RING = 1000
"""Facts kept for clients that come back."""
QUEUE = 1000
"""Facts that may wait for one client."""
MAX_STREAMS = 32
GAUGE_INTERVAL_S = 0.2
"""Gauges go to one client at most this often."""


@dataclass(eq=False)
class Subscription:
    """What waits for one client."""

    facts: deque[bytes] = field(default_factory=deque)
    gauges: dict[str, bytes] = field(default_factory=dict)
    last: bytes = b""
    """The final line, once the stream is to end."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Hub:
    """Everything published since this service started."""

    def __init__(
        self,
        boot_id: str,
        *,
        ring: int = RING,
        queue: int = QUEUE,
        heartbeat_s: float = HEARTBEAT_S,
        gauge_interval_s: float = GAUGE_INTERVAL_S,
    ) -> None:
        self.boot_id = boot_id
        self.seq = 0
        """Number of the newest fact."""
        self._ring: deque[bytes] = deque(maxlen=ring)
        self._queue = queue
        self._heartbeat_s = heartbeat_s
        self._gauge_interval_s = gauge_interval_s
        self._subscriptions: set[Subscription] = set()
        self._farewell = b""

    @property
    def oldest(self) -> int:
        """Number of the oldest fact that is still kept."""
        return self.seq - len(self._ring) + 1

    @property
    def streams(self) -> int:
        return len(self._subscriptions)

    def fact(self, topic: str, data: BaseModel | dict[str, Any], *, key: str = "") -> None:
        """Publish something that every client must learn. It overtakes a waiting gauge of the same key."""
        self.seq += 1
        line = _line(type="fact", seq=self.seq, topic=topic, key=key, data=_plain(data))
        self._ring.append(line)
        for subscription in list(self._subscriptions):
            subscription.gauges.pop(key, None)
            if len(subscription.facts) < self._queue:
                subscription.facts.append(line)
                subscription.changed.set()
            else:
                self._end(subscription, _line(type="lagged", boot_id=self.boot_id, seq=self.seq))

    def gauge(self, topic: str, data: BaseModel | dict[str, Any], *, key: str) -> None:
        """Publish the newest value of something that changes all the time."""
        if self._subscriptions:
            line = _line(type="gauge", topic=topic, key=key, data=_plain(data))
            for subscription in self._subscriptions:
                if not subscription.gauges:
                    subscription.changed.set()
                subscription.gauges[key] = line

    def close(self, reason: str) -> None:
        """Say `bye` on every stream, after what waits for it, and on those that come later."""
        self._farewell = _line(type="bye", boot_id=self.boot_id, seq=self.seq, reason=reason)
        for subscription in list(self._subscriptions):
            self._end(subscription, self._farewell, keep=True)

    def check_cursor(self, after: str) -> None:
        """Raises VocableError `request.invalid` when `after` is no cursor at all."""
        _parse_cursor(after)

    async def lines(self, after: str) -> AsyncIterator[bytes]:
        """Yield the lines of one stream: `hello` first, then what came after the cursor `after` (empty: from now on).

        The subscription begins with the first line and ends with the iterator, however that ends.
        """
        subscription = Subscription()
        start = self._replay(subscription, after)
        self._subscriptions.add(subscription)
        try:
            if self._farewell:
                self._end(subscription, self._farewell, keep=True)
            for line in start:
                yield line
            async for line in self._follow(subscription):
                yield line
        finally:
            self._subscriptions.discard(subscription)

    def _replay(self, subscription: Subscription, after: str) -> list[bytes]:
        """The first lines; facts since the cursor are put into the subscription's queue."""
        hello = _line(type="hello", boot_id=self.boot_id, seq=self.seq, oldest=self.oldest)
        if not after:
            return [hello]
        boot_id, seq = _parse_cursor(after)
        if boot_id != self.boot_id or not self.oldest - 1 <= seq <= self.seq:
            return [hello, _line(type="reset", boot_id=self.boot_id, seq=self.seq)]
        missed = self.seq - seq
        subscription.facts.extend(list(self._ring)[len(self._ring) - missed :])
        return [hello]

    async def _follow(self, subscription: Subscription) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        next_gauge = next_beat = loop.time()
        while True:
            subscription.changed.clear()
            while subscription.facts:
                yield subscription.facts.popleft()
                next_beat = loop.time() + self._heartbeat_s
            if subscription.last:
                yield subscription.last
                return
            if subscription.gauges and loop.time() >= next_gauge:
                gauges, subscription.gauges = subscription.gauges, {}
                next_gauge = loop.time() + self._gauge_interval_s
                next_beat = loop.time() + self._heartbeat_s
                yield b"".join(gauges.values())
            if loop.time() >= next_beat:
                next_beat = loop.time() + self._heartbeat_s
                yield _line(type="heartbeat", boot_id=self.boot_id, seq=self.seq)
            await _wait(subscription, next_gauge if subscription.gauges else next_beat)

    def _end(self, subscription: Subscription, last: bytes, *, keep: bool = False) -> None:
        if not keep:
            subscription.facts.clear()
        subscription.gauges.clear()
        subscription.last = subscription.last or last
        subscription.changed.set()
        self._subscriptions.discard(subscription)


async def _wait(subscription: Subscription, deadline: float) -> None:
    """Wait until there is a fact, a first gauge or an end to send, at most until `deadline`."""
    await wait_at_most(subscription.changed, max(0.0, deadline - asyncio.get_running_loop().time()))


def _parse_cursor(after: str) -> tuple[str, int]:
    boot_id, _, seq = after.rpartition(":")
    if not boot_id or not (seq.isascii() and seq.isdigit()) or len(seq) > 18:
        raise VocableError("request.invalid", "The cursor is not of the form BOOT_ID:SEQ.", "Read /v1/state for one.")
    return boot_id, int(seq)


def _plain(data: BaseModel | dict[str, Any]) -> dict[str, Any]:
    return data.model_dump(mode="json") if isinstance(data, BaseModel) else data


def _line(**values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode() + b"\n"
