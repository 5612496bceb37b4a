"""Turns losses into progress: adds them to the run's tally and table, and tells of them a few times a second.

Called by the training loop between steps.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.events import Progress, Step
from engine.training.outputs import LossTable
from engine.training.report import Pace, Readings, step_event
from engine.training.state import RunState

REPORT_EVERY_S = 0.25


class Reporter:
    """Reports on one stretch of training; `clock` gives seconds."""

    def __init__(self, state: RunState, table: LossTable, clock: Callable[[], float]) -> None:
        self._state = state
        self._table = table
        self._clock = clock
        self._readings = Readings(state.model.device)
        self._pace = Pace()
        self._held: list[Step] = []
        self._prompt = ""
        self.restart()

    def restart(self) -> None:
        """Begin to measure the pace anew, after something else than training took time."""
        self._reported_at = self._clock()
        self._pace.restart(self._reported_at, self._state.step)

    def push(self, learn_rate: float, values: Tensor, prompt: str) -> None:
        """Note what `train_step` returned for the update that `state.step` now counts."""
        self._readings.push(self._state.step, learn_rate, values)
        self._prompt = prompt

    def take(self, *, wait: bool) -> Progress | None:
        """Tell of the losses that arrived, if it is time to or with `wait`, which reads all that were pushed.

        Losses are told once there is a finite one to give a mean. When the run diverges, `state.tally` says so and
        the losses from there on are dropped.

        Raises:
            VocableError: `training.no_gradient`, `disk.*`.
        """
        now = self._clock()
        if not wait and 0 <= now - self._reported_at < REPORT_EVERY_S:
            return None
        self._reported_at = now
        self._read(wait=wait)
        if not (self._held and self._state.tally.counted):
            return None
        newest, losses, self._held = self._held[-1], tuple(self._held), []
        return Progress(
            step=newest.step,
            steps=self._state.schedule.last_step,
            losses=losses,
            mean_loss=self._state.tally.mean_loss,
            learn_rate=newest.learn_rate,
            steps_per_second=self._pace.measure(now, newest.step),
            prompt=self._prompt,
        )

    def _read(self, *, wait: bool) -> None:
        arrived = []
        for reading in self._readings.collect(wait=wait):
            self._state.tally = self._state.tally.add(reading)
            arrived.append(reading)
            if self._state.tally.diverging:
                break
        self._table.add(arrived)
        steps = [step_event(reading) for reading in arrived]
        self._held += steps
        self._state.unsaved += steps
