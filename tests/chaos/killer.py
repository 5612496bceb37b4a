"""Draws moments from a seed and kills the service, or its worker, when they come.

Kill number n of a seed is the same whatever came before, so a run of kills can be taken up in its middle.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from tests.chaos.house import House
from tests.chaos.watcher import Watcher

Target = Literal["service", "worker"]

PHASES = ("loading", "encoding", "training", "preview", "saving")
SERVICE_MOMENTS: Sequence[tuple[str, float]] = (
    *(("start", 2.0), ("ready", 3.0), ("request", 3.0), ("run", 3.0), ("job", 1.0), ("words", 1.0), ("worker", 1.0)),
    *((phase, 0.6) for phase in PHASES),
    *(("finished", 1.0), ("paused", 0.5), ("stopped", 0.5), ("progress", 3.0)),
)
WORKER_MOMENTS: Sequence[tuple[str, float]] = (
    *(("spawned", 6.0), ("idle", 1.0), ("request", 1.0), ("job", 1.5), ("progress", 4.0)),
    *((phase, 1.0) for phase in PHASES),
    *(("finished", 0.5), ("paused", 0.5)),
)
"""What a kill waits for, and how often each is drawn. The watcher's words; `start` is the process's, `ready` the
service's first answer, `spawned` the worker's first sign."""

DEEP = (*PHASES, "progress", "job", "idle", "finished", "paused", "stopped")
"""These come only once there is a worker that can take work."""
LATER_S = {"start": 0.8, "ready": 1.5, "spawned": 3.0, "progress": 0.3, "request": 0.03}
"""A kill comes up to so long after what it waits for."""
SOON_S = 0.05
"""The same for all others."""
WAIT_S = 2.0
"""What does not come within this, or for DEEP within this from a worker that is ready, is not waited for."""
READY_S = 60.0
"""The same for a worker that is ready, which takes seconds, and far longer on a busy machine."""
BURST, BURSTS = 6, 25
"""So many workers are killed one after the other, once in so many kills: then the queue pauses."""


@dataclass(frozen=True)
class Kill:
    number: int
    target: Target
    moment: str
    times: int
    """It waits for so many of them."""
    later_s: float


def draw(seed: int, kills: int) -> list[Kill]:
    """`kills` kills of the service and as many of the worker, in an order that the seed decides."""
    bursts = kills // BURSTS
    singles: list[list[Target]] = [["worker"]] * (kills - BURST * bursts) + [["service"]] * kills
    blocks: list[list[Target]] = [["worker"] * BURST] * bursts + singles
    random.Random(f"{seed} order").shuffle(blocks)
    return [_draw_one(seed, number, target) for number, target in enumerate(chain.from_iterable(blocks))]


def _draw_one(seed: int, number: int, target: Target) -> Kill:
    source = random.Random(f"{seed} {number}")
    moments = SERVICE_MOMENTS if target == "service" else WORKER_MOMENTS
    moment = source.choices([name for name, _ in moments], [weight for _, weight in moments])[0]
    times = source.randint(1, 12) if moment == "progress" else source.randint(1, 3) if moment == "request" else 1
    return Kill(number, target, moment, times, source.uniform(0, LATER_S.get(moment, SOON_S)))


class Killer:
    """Carries out kills in a house.

    Args:
        wait_s, ready_s: see WAIT_S and READY_S.
    """

    def __init__(
        self,
        house: House,
        watcher: Watcher,
        say: Callable[[str], None],
        *,
        wait_s: float = WAIT_S,
        ready_s: float = READY_S,
    ) -> None:
        self.moments: Counter[str] = Counter()
        """Kills by target and by what they waited for; those that came without it are `any time`."""
        self._house = house
        self._watcher = watcher
        self._say = say
        self._wait_s = wait_s
        self._ready_s = ready_s

    async def carry_out(self, kill: Kill) -> None:
        """Kill, and start the service again when it was that."""
        if kill.target == "service":
            moment = await self._wait(kill)
            await self._house.kill()
            self._watcher.forget_worker()
            await self._house.start()  # whether it comes up is seen by the next, which may kill it before
        else:
            moment = await self._kill_worker(kill)
        self.moments[f"{kill.target} {moment}"] += 1
        self._say(f"kill {kill.number + 1}: {kill.target} at {moment} + {kill.later_s * 1000:.0f} ms")

    async def _kill_worker(self, kill: Kill) -> str:
        while True:
            await self._house.until_up()
            await self._watcher.until(lambda: self._watcher.worker.pid)
            moment = await self._wait(kill)
            pid = self._watcher.worker.pid
            if pid is not None and self._house.kill_worker(pid):
                await self._watcher.until(lambda pid=pid: self._watcher.worker.pid != pid)
                return moment

    async def _wait(self, kill: Kill) -> str:
        """Wait for the moment; returns what it was."""
        moment = kill.moment
        if moment == "start" and self._house.up.is_set():
            return "any time"
        if moment != "start":
            await self._house.until_up()
        if moment in ("start", "ready", "spawned"):
            await asyncio.sleep(kill.later_s)
            return moment
        seen = self._watcher.seen
        goal = seen[moment] + kill.times
        try:
            if moment in DEEP:
                await self._watcher.until(lambda: seen[moment] >= goal or self._has_ready_worker(), self._ready_s)
            await self._watcher.until(lambda: seen[moment] >= goal, self._wait_s)
        except TimeoutError:
            moment = "any time"
        await asyncio.sleep(kill.later_s)
        return moment

    def _has_ready_worker(self) -> bool:
        return self._watcher.worker.state in ("idle", "busy")
