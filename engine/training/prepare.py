"""What is checked and compared before the first step: prompts, learning rate, and what changed since a checkpoint.

Called by the training loop, once it has the pictures.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dataset.templates import fill_template
from engine.events import Event, Warned
from engine.models.load import Model
from engine.prompt.layout import Lexicon
from engine.schedule import Schedule
from engine.training.batches import lay_out_with
from engine.training.job import TrainingJob
from engine.training.machine import describe_libraries, describe_machine

_NAMED = 10
"""Things named in one warning before the rest is only counted."""


def find_word(model: Model, job: TrainingJob) -> Lexicon:
    """The lexicon of the word that is trained, and of no other; of none where a hypernetwork is."""
    recipe = job.recipe
    return Lexicon(model.tokenizer, [(recipe.name, recipe.start.vectors)] if recipe.kind == "embedding" else [])


def check_caption(job: TrainingJob, lexicon: Lexicon, caption: str) -> None:
    """Look for the word in the prompts that a caption makes with each template line, as the model's tokenizer reads
    them; may run in any thread.

    Raises:
        VocableError: `training.word_missing` with the prompt in which it is not found.
    """
    for line in job.resolved.lines:
        lay_out_with(lexicon, job.recipe.name, fill_template(line, name=job.recipe.name, filewords=caption))


def check_captions(job: TrainingJob, lexicon: Lexicon, captions: Iterable[str]) -> Generator[None]:
    """`check_caption` of each, once. Yields None in between: thousands of captions take some seconds."""
    for caption in dict.fromkeys(captions):
        check_caption(job, lexicon, caption)
        yield


def check_schedule(job: TrainingJob, schedule: Schedule, values: NDArray[np.float32]) -> Iterator[Event]:
    """Warn of a learning rate that ends early or, from these values, cannot get a word anywhere."""
    steps, reach, typical = job.recipe.train.steps, schedule.reach(), float(np.abs(values).mean())
    if schedule.last_step < steps:
        yield Warned(
            "train.schedule",
            f"The learning rate ends at step {schedule.last_step}, so the run does too, not at {steps}.",
            "End train.learn_rate with a rate alone to train to the last step.",
        )
    # Adam moves a component by about the rate, each step; a hypernetwork has so many that little of each does much.
    if reach < typical / 2 and job.recipe.kind == "embedding":
        yield Warned(
            "train.reach",
            f"With this learning rate the components of the vectors can move by about {reach:.2g} in all, but they"
            f" start at about {typical:.2g}: the word will stay nearly what it is.",
            "A rate of 0.005 and some hundreds of steps are usual.",
        )


def describe_run(model: Model, job: TrainingJob) -> dict[str, Any]:
    """What the numbers of a run depend on besides its seed and its pictures; checkpoints keep it, `find_changes`
    compares it."""
    return {
        "recipe": _flatten(job.recipe.model_dump(mode="json", exclude={"save", "preview"})),
        "template": list(job.resolved.lines),
        "model": {"name": model.entry.name, "hash": model.entry.hash},
        "machine": describe_machine(model),
        "versions": describe_libraries(),
    }


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any], fault: str = "") -> Iterator[Event]:
    """Warn of what changed since a checkpoint was written: the run goes on with what there is now.

    Args:
        fault: something else that did; the end of a sentence.
    """
    changes = [fault] if fault else []
    changes += [change for group in now for change in _changes(group, before.get(group), now[group])]
    if changes:
        more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
        yield Warned(
            "resume.changed",
            f"Resumed, not bit-exact: since the checkpoint these changed: {'; '.join(changes[:_NAMED])}{more}.",
            "The run goes on with what there is now; its numbers will not be those of an undisturbed run.",
        )


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
