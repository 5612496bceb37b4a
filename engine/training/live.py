"""A run's pictures while it trains: what the folder brings is encoded between two steps and counts from an epoch on.

Called by the training loop after each step. What is trained on at a step is decided by the journal alone: a change is
written there before the first step that depends on it, and a step that was done once never shows another set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from engine.dataset.latents import FetchedPicture
from engine.dataset.manifest import Difference, Manifest, compare, describe
from engine.dataset.survey import Offer, Settled, Survey, Trouble
from engine.errors import VocableError
from engine.events import DatasetChanged, Event, Warned
from engine.models.load import Model
from engine.training.epochs import Epochs
from engine.training.gather import (
    Material,
    describe_lost,
    make_samples,
    read_caption_of,
    warn_of_cache,
    warn_of_transparency,
)
from engine.training.job import TrainingJob
from engine.training.memory import memory_error


class Watch(Protocol):
    """Looks at the folder meanwhile; see `engine.dataset.lookout`."""

    def take(self) -> Offer | None: ...

    def close(self) -> None: ...


class Pictures:
    """What the steps of a run show.

    Args:
        reached: a step that the run had come to before; those up to it stay as they were.
        last_step: of the run.
        check: raises VocableError for a caption that training cannot use.
        watch: begins to look at the folder of a live dataset.

    Raises:
        VocableError: `disk.*` when the journal of a live dataset cannot be begun.
    """

    def __init__(
        self,
        model: Model,
        job: TrainingJob,
        material: Material,
        *,
        reached: int,
        last_step: int,
        check: Callable[[str], None],
        watch: Callable[[Survey], Watch],
    ) -> None:
        self.epochs: Epochs = material.epochs
        self._model, self._job = model, job
        self._cache, self._latents = material.cache, material.latents
        self._troubles = material.troubles
        self._troubles.clear()
        self._manifest = material.manifest
        self._journal = material.journal
        self._reached = reached
        self._last_step = last_step
        self._next: Manifest | None = None
        """What the folder holds, when that is not the newest set."""
        self._watch: Watch | None = None
        if self._journal is not None:
            if not material.is_replayed:
                self._journal.begin(0, 0, self._manifest)
            survey = Survey(
                job.resolved.folder,
                self._manifest,
                material.stamps,
                fetch=self._cache.fetch,
                caption=lambda path: read_caption_of(job, path),
                check=check,
            )
            self._watch = watch(survey)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def describe(self, step: int) -> dict[str, Any]:
        """What a checkpoint of `step` keeps: the pictures by name, and which journal says so."""
        if self._journal is None:
            return {"pictures": summarize(self._manifest)}
        record = next(record for record in reversed(self._journal.records) if record.after_step <= step)
        return {"pictures": summarize(record.manifest), "journal": self._journal.mark}

    def find_fault(self, step: int) -> str:
        """What the updates after `step` should show but cannot, as the end of a sentence; empty when there is none."""
        lost = self.epochs.lost_after(step)
        return describe_lost(lost) if lost else ""

    def tend(self) -> Iterator[Event]:
        """Take one find of the watch, if there is one: a new picture is encoded, which uses the device."""
        offer = None if self._watch is None else self._watch.take()
        match offer:
            case None:
                return
            case Trouble():
                yield Warned(offer.code, offer.title, offer.hint)
            case Settled():
                known = {name: entry for name, entry in offer.manifest.items() if entry.sha256 in self._latents}
                self._next = known if known and known != self._manifest else None
            case FetchedPicture():
                yield from self._encode(offer)

    def _encode(self, offer: FetchedPicture) -> Iterator[Event]:
        try:
            self._latents[offer.sha256] = self._cache.finish(offer)
        except Exception as error:
            shown = memory_error(error, self._model, self._job) or error
            if not isinstance(shown, VocableError):
                raise
            title = f"The picture '{offer.name}' is left out. {shown.title}"
            yield Warned("dataset.skipped", title, "It is tried again when the run goes on after a pause.")
        yield from warn_of_cache(self._troubles)
        self._troubles.clear()

    def go_back(self, step: int) -> None:
        """The run goes back from `step` to an earlier one; what it did up to there stays as it was.

        Were another set to take over before, a resume from a checkpoint of before the fault would not come by the fault
        again, and not go back.
        """
        self._reached = max(self._reached, step)

    def is_due(self, step: int) -> bool:
        """Whether another set takes over after `step` updates: only at the end of an epoch, never where a set was
        decided or shown before."""
        if self._next is None or self._journal is None:
            return False
        earliest = max(self._reached, self._journal.records[-1].after_step + 1)
        return earliest <= step < self._last_step and self.epochs.begins_at(step)

    def change(self, step: int) -> Iterator[Event]:
        """Have the set that is due take over after `step` updates.

        Raises:
            VocableError: `disk.*` when the journal cannot be written; the set stays as it was then.
        """
        assert self._next is not None
        assert self._journal is not None
        manifest, self._next = self._next, None
        epochs = self.epochs.go_on_with(step, make_samples(manifest, self._latents))
        self._journal.change(step, epochs.stretches[-1].epoch, manifest)
        difference = compare(self._manifest, manifest)
        self.epochs, self._manifest = epochs, manifest
        title = f"{describe(difference)} from step {step + 1} on; {len(manifest)} in all."
        yield DatasetChanged(step, len(manifest), title)
        yield from warn_of_transparency(_newcomers(difference, manifest), self._latents)


def summarize(manifest: Manifest) -> dict[str, str]:
    """By picture name: hash of its bytes and of its caption."""
    return {
        name: f"{entry.sha256} {hashlib.sha256(entry.caption.encode('utf-8', 'surrogateescape')).hexdigest()}"
        for name, entry in manifest.items()
    }


def _newcomers(difference: Difference, manifest: Manifest) -> Manifest:
    return {name: manifest[name] for name in (*difference.new, *difference.replaced)}
