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


@dataclass
class _Flight:
    items: list[tuple[int, float]]
    values: Tensor
    """[n, 2] on the CPU; filled once `arrived`."""
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


def _reading(step: int, learn_rate: float, loss: float, peak: float) -> Reading:
    return Reading(step, learn_rate, loss if math.isfinite(loss) else None, peak != 0)


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

    @property
    def mean_loss(self) -> float:
        return self.mean / (1 - DECAY**self.counted) if self.counted else math.nan

    @property
    def good_step(self) -> int:
        """The step before the updates that were left out last."""
        return self.step - self.skipped_in_row

    @property
    def diverging(self) -> bool:
        return self.skipped_in_row >= SKIPPED_IN_ROW

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
            skipped, in_row = self.skipped + 1, self.skipped_in_row + 1
            return replace(self, step=reading.step, still=still, skipped=skipped, skipped_in_row=in_row)
        mean, counted = DECAY * self.mean + (1 - DECAY) * reading.loss, self.counted + 1
        return replace(self, step=reading.step, still=still, mean=mean, counted=counted, skipped_in_row=0)

    def rolled_back(self, scale: float, roll_backs: int) -> Tally:
        return replace(self, rate_scale=scale, roll_backs=roll_backs, skipped_in_row=0)


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
