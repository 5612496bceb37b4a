"""Which picture stands in which place of which step, while pictures come and go.

Made by training and the benchmark, asked for each batch. The answer is a function of seed, step and place alone: a set
of pictures that changed counts from a step on that is written down, whenever the change was noticed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from engine.dataset.latents import Latents
from engine.randomness import python_random


@dataclass(frozen=True)
class Sample:
    """One picture of the dataset as training sees it."""

    name: str
    caption: str
    latents: Latents


@dataclass(frozen=True)
class Stretch:
    """The epochs over one set of pictures."""

    after_step: int
    """Updates done when it begins."""
    epoch: int
    """Number of its first epoch, from 0 at the start of the run."""
    samples: tuple[Sample, ...]
    """At least one."""
    lost: tuple[str, ...] = ()
    """Pictures that belong to it but can be had no more."""


@dataclass(frozen=True)
class Epochs:
    """All stretches of a run, those to come that were decided already included.

    An epoch shows each picture of its set once, in an order of its own; batches may span two epochs of one stretch.
    """

    stretches: tuple[Stretch, ...]
    """At least one; the first begins with the run."""
    batch_size: int
    seed: int

    def stretch_at(self, step: int) -> Stretch:
        """The stretch of update number `step`, counted from 0."""
        return next(stretch for stretch in reversed(self.stretches) if stretch.after_step <= step)

    def sample_at(self, step: int, slot: int) -> Sample:
        """The picture in place `slot` of the batch of update number `step`; both from 0."""
        stretch = self.stretch_at(step)
        count = len(stretch.samples)
        epoch, place = divmod((step - stretch.after_step) * self.batch_size + slot, count)
        return stretch.samples[_order(self.seed, stretch.epoch + epoch, count)[place]]

    def epoch_of(self, step: int) -> tuple[int, int]:
        """Epoch of the first picture of update number `step`, and the update's place in that epoch; both from 0."""
        stretch = self.stretch_at(step)
        epoch, picture = divmod((step - stretch.after_step) * self.batch_size, len(stretch.samples))
        return stretch.epoch + epoch, picture // self.batch_size

    def begins_at(self, step: int) -> bool:
        """Whether update number `step` is the first that begins within its epoch: here another set may take over."""
        return self.epoch_of(step)[1] == 0

    def lost_after(self, step: int) -> tuple[str, ...]:
        """Pictures that the updates after `step` should show but cannot."""
        first = self.stretches.index(self.stretch_at(step))
        return tuple(dict.fromkeys(name for stretch in self.stretches[first:] for name in stretch.lost))

    def go_on_with(self, after_step: int, samples: tuple[Sample, ...]) -> Epochs:
        """The same epochs up to `after_step`, where one over `samples` begins."""
        before = tuple(stretch for stretch in self.stretches if stretch.after_step < after_step)
        stretch = Stretch(after_step, self.epoch_of(after_step)[0], samples)
        return replace(self, stretches=(*before, stretch))


def make_epochs(samples: tuple[Sample, ...], *, batch_size: int, seed: int) -> Epochs:
    """The epochs over one set of pictures from the first step to the last."""
    return Epochs((Stretch(0, 0, samples),), batch_size, seed)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """Places of the dataset's pictures in the order of one epoch."""
    places = list(range(count))
    python_random(seed, "order", epoch).shuffle(places)
    return tuple(places)
