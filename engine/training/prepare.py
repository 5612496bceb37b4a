"""Everything before the first step: pictures encoded, captions read, prompts checked, and what changed since.

Called by the training loop. Pictures that cannot be read are left out and named; the run fails only if none remains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dataset.captions import read_caption
from engine.dataset.latents import LatentCache
from engine.dataset.templates import fill_template
from engine.errors import VocableError
from engine.events import Event, PhaseChanged, Warned
from engine.models.load import Model
from engine.prompt.layout import Lexicon
from engine.schedule import Schedule
from engine.training.batches import lay_out_with
from engine.training.epochs import Sample
from engine.training.job import Control, TrainingJob
from engine.training.machine import describe_libraries, describe_machine

_NAMED = 10
"""Things named in one warning before the rest is only counted."""


@dataclass(frozen=True)
class Material:
    """What training works on, in memory."""

    samples: tuple[Sample, ...]
    skipped: tuple[str, ...]
    """Sentences, one for each picture that could not be read."""
    snapshot: Mapping[str, str]
    """By picture name: hash of its bytes and of its caption."""


def encode_pictures(model: Model, job: TrainingJob, control: Control) -> Generator[Event | None, None, Material | None]:
    """Encode the job's pictures, telling how far it is; returns the `Material`, or None when asked to end.

    Raises:
        VocableError: `dataset.unreadable` when no picture can be read.
    """
    troubles: list[VocableError] = []
    cache = LatentCache(job.latents, model, width=job.width, height=job.height, on_write_error=troubles.append)
    samples: list[Sample] = []
    skipped: list[str] = []
    transparent: list[str] = []
    snapshot: dict[str, str] = {}
    pictures = job.resolved.pictures
    for done, path in enumerate(pictures):
        yield PhaseChanged("encoding", done, len(pictures))
        if control.ask:
            return None
        try:
            encoded = cache.encode(path)
            caption = _read_caption(job, path)
        except VocableError as error:
            if error.code not in ("dataset.picture", "dataset.caption"):
                raise
            skipped.append(error.title)
            continue
        samples.append(Sample(path.name, caption, encoded.latents))
        snapshot[path.name] = f"{encoded.sha256} {hashlib.sha256(caption.encode()).hexdigest()}"
        if encoded.latents.transparent:
            transparent.append(path.name)
    yield PhaseChanged("encoding", len(pictures), len(pictures))
    if not samples:
        raise VocableError(
            "dataset.unreadable",
            f"None of the {len(pictures)} pictures in '{job.resolved.folder}' could be read. {skipped[0]}",
            "Put pictures there that other programs can open.",
        )
    yield from _warnings(skipped, transparent, troubles)
    return Material(tuple(samples), tuple(skipped), snapshot)


def check_prompts(model: Model, job: TrainingJob, material: Material) -> Lexicon:
    """Find the word in the prompts of every template line, as the model's tokenizer reads them; returns the lexicon
    of that one word.

    Raises:
        VocableError: `training.word_missing` with the prompt in which it is not found.
    """
    recipe = job.recipe
    lexicon = Lexicon(model.tokenizer, [(recipe.name, recipe.start.vectors)])
    for line in job.resolved.lines:
        lay_out_with(lexicon, recipe.name, fill_template(line, name=recipe.name, filewords=material.samples[0].caption))
    return lexicon


def check_schedule(job: TrainingJob, schedule: Schedule, vectors: NDArray[np.float32]) -> Iterator[Event]:
    """Warn of a learning rate that ends early or, from these vectors, cannot get anywhere."""
    steps, reach, typical = job.recipe.train.steps, schedule.reach(), float(np.abs(vectors).mean())
    if schedule.last_step < steps:
        yield Warned(
            "train.schedule",
            f"The learning rate ends at step {schedule.last_step}, so the run does too, not at {steps}.",
            "End train.learn_rate with a rate alone to train to the last step.",
        )
    if reach < typical / 2:  # Adam moves a component by about the rate, each step
        yield Warned(
            "train.reach",
            f"With this learning rate the components of the vectors can move by about {reach:.2g} in all, but they"
            f" start at about {typical:.2g}: the word will stay nearly what it is.",
            "A rate of 0.005 and some hundreds of steps are usual.",
        )


def describe_run(model: Model, job: TrainingJob, material: Material) -> dict[str, Any]:
    """What the numbers of a run depend on besides its seed; checkpoints keep it, `find_changes` compares it."""
    return {
        "recipe": _flatten(job.recipe.model_dump(mode="json", exclude={"save", "preview"})),
        "template": list(job.resolved.lines),
        "pictures": dict(material.snapshot),
        "model": {"name": model.entry.name, "hash": model.entry.hash},
        "machine": describe_machine(model),
        "versions": describe_libraries(),
    }


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Event]:
    """Warn of what changed since a checkpoint was written: the run goes on with what there is now."""
    changes = [change for group in now for change in _changes(group, before.get(group), now[group])]
    if changes:
        more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
        yield Warned(
            "resume.changed",
            f"Resumed, not bit-exact: since the checkpoint these changed: {'; '.join(changes[:_NAMED])}{more}.",
            "The run goes on with what there is now; its numbers will not be those of an undisturbed run.",
        )


def _read_caption(job: TrainingJob, path: Path) -> str:
    return read_caption(path, word_regex=job.recipe.data.word_regex, word_join=job.recipe.data.word_join)


def _warnings(skipped: list[str], transparent: list[str], troubles: list[VocableError]) -> Iterator[Event]:
    if skipped:
        yield Warned("dataset.skipped", f"{_count(len(skipped), 'picture')} left out: {_some(skipped, ' ')}")
    if transparent:
        names = _some(transparent, ", ")
        yield Warned(
            "dataset.transparent",
            f"{_count(len(transparent), 'picture')} with see-through parts, laid on white: {names}.",
            "Give pictures with a background of their own if white should not be learnt.",
        )
    if troubles:
        yield Warned("cache.write", f"Encoded pictures could not be kept: {troubles[0].title}", troubles[0].hint)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(items: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return separator.join(items[:_NAMED]) + more


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _changes(group: str, before: Any, now: Any) -> list[str]:
    if before == now:
        return []
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [f"the {group}"]
    if group == "pictures":
        return [
            _picture_change(name, before, now) for name in sorted({*before, *now}) if before.get(name) != now.get(name)
        ]
    keys = [key for key in {**now, **before} if before.get(key) != now.get(key)]
    return [f"{key} ({before.get(key)} became {now.get(key)})" for key in keys]


def _picture_change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if name not in now:
        return f"{name} is gone"
    return f"{name} is new" if name not in before else f"{name} or its caption is another"
