"""What the loop knows about its losses: read from the device late and in bulk, averaged, and judged.

Called by the training loop. `Readings` never makes the loop wait unless asked to; `Tally` is plain data that a
checkpoint keeps, and a function of the losses alone.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from engine.errors import VocableError
from engine.events import Step

DECAY = 0.99
SKIPPED_IN_ROW = 10
"""Updates left out one after the other that make the run go back to a checkpoint."""
MAX_ROLL_BACKS = 2
MAX_GROWTH = 10.0
"""What a hypernetwork adds may be so many times as large as what it is added to; beyond that nothing of it is left."""
MAX_RISE = 4.0
"""The loss of a step may be so many times the best mean; many steps beyond that in a row are no chance."""
SETTLED = 20
"""Losses after which their mean says something."""
STILL_STEPS = 3
"""First updates of which at least one must have a gradient."""


@dataclass(frozen=True)
class Reading:
    step: int
    """Updates done after this one, from 1."""
    learn_rate: float
    loss: float | None
    """None when the update was left out."""
    moved: bool
    """The gradient was not zero throughout."""
    growth: float | None = None
    """Of a hypernetwork: largest ratio, over the attention modules, of what it adds to what was there; both as root of
    the mean square."""


@dataclass
class _Flight:
    items: list[tuple[int, float]]
    values: Tensor
    """[n, 2] or [n, 3] on the CPU; filled once `arrived`."""
    arrived: torch.cuda.Event | None


class Readings:
    """Losses on their way from the device, in order."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pending: list[tuple[int, float, Tensor]] = []
        self._flight: _Flight | None = None

    def push(self, step: int, learn_rate: float, values: Tensor) -> None:
        """Note what `train_step` returned for one step."""
        self._pending.append((step, learn_rate, values))

    def collect(self, *, wait: bool) -> list[Reading]:
        """What has arrived since the last call, oldest first; with `wait` everything that was pushed."""
        found: list[Reading] = []
        while True:
            if self._flight is None:
                if not self._pending:
                    return found
                self._flight = self._launch()
            if self._flight.arrived is not None:
                if not wait and not self._flight.arrived.query():  # type: ignore[no-untyped-call]
                    return found
                self._flight.arrived.synchronize()
            rows = self._flight.values.tolist()
            found += [_reading(*item, *row) for item, row in zip(self._flight.items, rows, strict=True)]
            self._flight = None

    def _launch(self) -> _Flight:
        items = [(step, rate) for step, rate, _ in self._pending]
        stacked = torch.stack([values for *_, values in self._pending])
        self._pending = []
        if self._device.type != "cuda":
            return _Flight(items, stacked.cpu(), None)
        host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
        host.copy_(stacked, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        return _Flight(items, host, arrived)


def _reading(step: int, learn_rate: float, loss: float, peak: float, growth: float | None = None) -> Reading:
    return Reading(step, learn_rate, loss if math.isfinite(loss) else None, peak != 0, growth)


@dataclass(frozen=True)
class Tally:
    """What the losses so far amount to."""

    step: int = 0
    """Step of the newest of them."""
    mean: float = 0.0
    """Exponential mean, not yet corrected for its start at zero."""
    counted: int = 0
    """Losses in the mean."""
    skipped: int = 0
    """Updates left out in all."""
    skipped_in_row: int = 0
    still: int = 0
    """Updates since the start without any gradient; -1 once there was one."""
    rate_scale: float = 1.0
    """Factor on the schedule's rate: halved at each roll-back."""
    roll_backs: int = 0
    best_mean: float = 0.0
    """Least mean of a hypernetwork's losses since they settled; 0 before."""
    exploded_in_row: int = 0
    """Updates of a hypernetwork, one after the other, that show that it is being ruined."""
    sign: str = ""
    """What the newest of them showed."""

    @property
    def mean_loss(self) -> float:
        return self.mean / (1 - DECAY**self.counted) if self.counted else math.nan

    @property
    def good_step(self) -> int:
        """The step before the updates that were left out last; or the last one whose outcome was seen to be sound: what
        an update shows was done by those before it."""
        exploded = self.exploded_in_row + 1 if self.exploded_in_row else 0
        return max(self.step - max(self.skipped_in_row, exploded), 0)

    @property
    def diverging(self) -> bool:
        return max(self.skipped_in_row, self.exploded_in_row) >= SKIPPED_IN_ROW

    @property
    def symptom(self) -> str:
        """How it shows that the run diverges; the beginning of a sentence."""
        if self.skipped_in_row >= SKIPPED_IN_ROW:
            return f"Loss or gradient was not finite in {self.skipped_in_row} steps in a row, up to step {self.step}"
        return f"{self.sign} and stayed so for {self.exploded_in_row} steps, up to step {self.step}"

    @property
    def advice(self) -> str:
        if self.skipped_in_row >= SKIPPED_IN_ROW:
            return "Lower train.learn_rate, or set train.precision = float32"
        return "Lower train.learn_rate, to a tenth say: too high a rate ruins a hypernetwork for good"

    def add(self, reading: Reading) -> Tally:
        """The tally after one more update.

        Raises:
            VocableError: `training.no_gradient` when none of the first updates had a gradient.
        """
        still = -1 if self.still < 0 or reading.moved else self.still + 1
        if still >= STILL_STEPS:
            raise VocableError(
                "training.no_gradient",
                f"Nothing reaches the word: the gradient was exactly zero in the first {still} steps.",
                "The model's output does not depend on the word's place in the prompt, or its numbers vanish: try"
                " train.precision = float32, another template or another model.",
            )
        if reading.loss is None:
            exploded = self.exploded_in_row + 1 if self.exploded_in_row else 0
            return replace(
                self,
                step=reading.step,
                still=still,
                skipped=self.skipped + 1,
                skipped_in_row=self.skipped_in_row + 1,
                exploded_in_row=exploded,
            )
        mean, counted = DECAY * self.mean + (1 - DECAY) * reading.loss, self.counted + 1
        tally = replace(self, step=reading.step, still=still, mean=mean, counted=counted, skipped_in_row=0)
        return tally if reading.growth is None else tally._judge(reading.loss, reading.growth)

    def _judge(self, loss: float, growth: float) -> Tally:
        """The tally after an update of a hypernetwork whose loss is in the mean already."""
        sign = ""
        if growth > MAX_GROWTH:
            sign = f"What the hypernetwork adds grew to {growth:.3g} times what it is added to"
        elif self.best_mean and loss > MAX_RISE * self.best_mean:
            sign = f"The loss rose to {loss:.3g} from a mean of {self.best_mean:.3g}"
        if sign:
            return replace(self, exploded_in_row=self.exploded_in_row + 1, sign=sign)
        best = min(self.best_mean or self.mean_loss, self.mean_loss) if self.counted >= SETTLED else 0.0
        return replace(self, exploded_in_row=0, sign="", best_mean=best)

    def rolled_back(self, scale: float, roll_backs: int) -> Tally:
        return replace(self, rate_scale=scale, roll_backs=roll_backs, skipped_in_row=0, exploded_in_row=0, sign="")


@dataclass
class Pace:
    """Steps per second over the last moments of training; pauses for previews do not count."""

    window_s: float = 10.0
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def restart(self, now: float, step: int) -> None:
        """Begin anew after a pause."""
        self._marks.clear()
        self._marks.append((now, step))

    def measure(self, now: float, step: int) -> float:
        """Steps per second now; 0 when no time has passed."""
        self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[0][0] > self.window_s:
            self._marks.popleft()
        (begin, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / (end - begin) if end > begin else 0.0


def step_event(reading: Reading) -> Step:
    return Step(reading.step, reading.loss, reading.learn_rate)
