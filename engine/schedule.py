"""Learning-rate schedules as text: `0.005:100, 1e-3:1000, 1e-5` becomes a rate at every step.

The syntax is the web UI's: pairs `rate:until`, the last rate may stand alone. A rate changes when the step
equals its `until`, so `0.005:100` covers updates 0 to 99. Used by recipe, training and the form's drawing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from engine.errors import VocableError


@dataclass(frozen=True)
class Segment:
    """One stretch of constant rate."""

    rate: float
    """Learning rate, above zero."""
    until: int
    """First update (counted from 0) that no longer uses this rate."""


@dataclass(frozen=True)
class Schedule:
    """A piecewise constant learning rate."""

    segments: tuple[Segment, ...]

    @property
    def last_step(self) -> int:
        """Number of updates after which training ends, because no rate is given beyond it."""
        return self.segments[-1].until

    def rate_at(self, step: int) -> float:
        """Rate of update number `step` (0-based, below `last_step`)."""
        place = bisect_right([segment.until for segment in self.segments], step)
        return self.segments[place].rate

    def reach(self, start: int = 0) -> float:
        """Sum of the rates from update `start` on: about how far Adam can move one component."""
        total, begin = 0.0, 0
        for segment in self.segments:
            total += segment.rate * max(0, segment.until - max(begin, start))
            begin = segment.until
        return total


def parse_schedule(text: str, steps: int) -> Schedule:
    """Read schedule text for a run of `steps` updates.

    `until` beyond `steps`, -1, or a missing one means to the end; blanks and empty items are ignored.

    Raises:
        VocableError: `schedule.invalid` with the item that does not parse.
    """
    segments: list[Segment] = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        if segments and segments[-1].until >= steps:
            break
        segment = _parse_item(item, steps)
        if segments and segment.until <= segments[-1].until:
            raise _invalid(text, f"step {segment.until} in '{item}' does not come after {segments[-1].until}")
        segments.append(segment)
    if not segments:
        raise _invalid(text, "it holds no rate")
    return Schedule(tuple(segments))


def _parse_item(item: str, steps: int) -> Segment:
    rate_text, colon, until_text = (part.strip() for part in item.partition(":"))
    try:
        rate = float(rate_text)
        until = int(until_text) if colon else -1
    except ValueError:
        raise _invalid(item, "a rate is a number, a step a whole number") from None
    if not (math.isfinite(rate) and rate > 0):
        raise _invalid(item, "a rate must be above zero")
    if until == 0 or until < -1:
        raise _invalid(item, "a step must be above zero")
    return Segment(rate, steps if until == -1 else min(until, steps))


def _invalid(text: str, why: str) -> VocableError:
    return VocableError(
        "schedule.invalid",
        f"'{text}' is not a learning rate: {why}.",
        "Write one rate (0.005) or pairs of rate and step (0.005:100, 1e-3:1000, 1e-5).",
    )
