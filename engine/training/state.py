"""The state of a run between two steps, and its way to and from checkpoints.

Called by the training loop. Everything that the coming steps depend on is in a checkpoint, so that going on from one
gives the numbers of a run that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.embedding.create import create_embedding
from engine.embedding.metadata import describe
from engine.errors import VocableError
from engine.events import CheckpointSaved, Event, Progress, Step, Warned
from engine.hypernetwork.create import create_hypernetwork
from engine.hypernetwork.network_file import HypernetworkFile
from engine.models.load import Model
from engine.recipe import Recipe, format_recipe
from engine.schedule import Schedule, parse_schedule
from engine.training.checkpoint import Checkpoint, load_newest, save_checkpoint, set_aside
from engine.training.job import TrainingJob
from engine.training.network import predict_with_network
from engine.training.product import Product, values_of, with_values
from engine.training.report import MAX_ROLL_BACKS, Tally
from engine.training.step import Learner, create_learner, export_tensors, import_tensors, predict_with_word

MAX_RETOLD = 10_000
"""Losses that a checkpoint holds at most."""


@dataclass
class RunState:
    model: Model
    job: TrainingJob
    schedule: Schedule
    start: Product
    """What is trained, before its first update."""
    learner: Learner
    step: int = 0
    """Updates done."""
    tally: Tally = field(default_factory=Tally)
    """As of the losses read so far; at a checkpoint these are all."""
    saved_step: int | None = None
    """Step of the newest checkpoint."""
    unsaved: list[Step] = field(default_factory=list)
    """Losses since then."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the numbers depend on, from `describe_run`; empty until the pictures are encoded."""
    describe_pictures: Callable[[int], dict[str, Any]] = lambda step: {}
    """The same of the pictures, which may be others after other steps."""

    @property
    def checkpoints(self) -> Path:
        return self.job.folder / "checkpoints"

    @property
    def learn_rate(self) -> float:
        """Rate of the next update."""
        return self.schedule.rate_at(self.step) * self.tally.rate_scale

    def is_due(self, every: int) -> bool:
        """Something that happens every so many steps (0: never) happens now."""
        return every > 0 and self.step % every == 0


def create_state(model: Model, job: TrainingJob) -> RunState:
    """A run before its first step."""
    recipe = job.recipe
    schedule = parse_schedule(recipe.train.learn_rate, recipe.train.steps)
    start = _create_product(model, recipe)
    if isinstance(start, HypernetworkFile):
        how = predict_with_network(model, start, seed=recipe.train.seed)
    else:
        how = predict_with_word(recipe.name)
    learner = create_learner(model, values_of(start), how, weight_decay=recipe.train.weight_decay)
    return RunState(model, job, schedule, start, learner)


def _create_product(model: Model, recipe: Recipe) -> Product:
    begin = recipe.start
    if recipe.kind == "embedding":
        return create_embedding(model, name=recipe.name, init_text=begin.init_text, vectors=begin.vectors)
    return create_hypernetwork(
        model,
        name=recipe.name,
        sizes=begin.sizes,
        widths=begin.widths,
        activation=begin.activation,
        weight_init=begin.init,
        layer_norm=begin.layer_norm,
        dropout=begin.dropout,
        seed=recipe.train.seed,
    )


def resume(state: RunState) -> tuple[Checkpoint | None, list[Event]]:
    """Go on from the newest checkpoint that verifies, if any; the events warn of those that did not.

    Raises:
        VocableError: `resume.impossible` when the checkpoint is of another shape.
    """
    kept, damaged = load_newest(state.checkpoints)
    warnings: list[Event] = [
        Warned("checkpoint.damaged", f"A checkpoint does not verify and was moved to {path}.", "An older one is used.")
        for path in damaged
    ]
    if kept is not None:
        _restore(state, kept)
    return kept, warnings


def save_state(state: RunState) -> Event:
    """Write a checkpoint of now, when every loss has been read."""
    run = {**state.facts, **state.describe_pictures(state.step)}
    losses = [asdict(step) for step in state.unsaved[-MAX_RETOLD:]]
    facts = {"step": state.step, "tally": asdict(state.tally), "run": run, "losses": losses}
    every = state.job.recipe.save.checkpoint_every
    tensors, good = export_tensors(state.learner), state.tally.good_step
    path = save_checkpoint(state.checkpoints, state.step, tensors, facts, every=every, good=good)
    state.saved_step, state.unsaved = state.step, []
    return CheckpointSaved(state.step, str(path))


def retell(state: RunState, kept: Checkpoint) -> Iterator[Event]:
    """Tell of the last losses before a checkpoint again: whoever keeps them may have been killed before it did."""
    losses = tuple(Step(**values) for values in kept.facts.get("losses", ()))
    if losses and state.tally.counted:
        steps, rate = state.schedule.last_step, losses[-1].learn_rate
        yield Progress(kept.step, steps, losses, state.tally.mean_loss, rate, steps_per_second=0.0, prompt="")


def roll_back(state: RunState) -> Iterator[Event]:
    """Go back to before the updates that were left out, with half the learning rate.

    Only checkpoints of the regular interval count, so that a pause in between changes nothing.

    Raises:
        VocableError: `training.diverged` when this happened too often.
    """
    failed = state.tally
    every = state.job.recipe.save.checkpoint_every
    title, advice = failed.symptom, failed.advice
    hint = f"{advice}; the copies made so far are in the run's folder."
    if failed.roll_backs >= MAX_ROLL_BACKS:
        raise VocableError("training.diverged", f"{title}, after {failed.roll_backs} roll-backs.", hint)
    kept, _ = load_newest(state.checkpoints, before=failed.good_step, every=every)
    if kept is None:
        raise VocableError("training.diverged", f"{title}, and no checkpoint is left to go back to.", hint)
    set_aside(state.checkpoints, after=kept.step)
    _restore(state, kept)
    state.tally = state.tally.rolled_back(failed.rate_scale / 2, failed.roll_backs + 1)
    yield Warned(
        "training.rolled_back",
        f"{title}: back to step {kept.step} with {state.tally.rate_scale:g} times the learning rate.",
        f"If this goes on: {advice[:1].lower()}{advice[1:]}.",
    )


def export_product(state: RunState) -> Product:
    """The word or hypernetwork as it is now. Waits for the device."""
    model, recipe = state.model, state.job.recipe
    metadata = describe(
        model.entry,
        prediction_type=model.prediction_type,
        init_text=recipe.start.init_text if recipe.kind == "embedding" else None,
        recipe=format_recipe(recipe),
    )
    values = state.learner.values.detach().cpu().numpy().copy()
    return replace(with_values(state.start, values, state.step), metadata=metadata)


def _restore(state: RunState, kept: Checkpoint) -> None:
    import_tensors(state.learner, kept.tensors)
    state.step = state.saved_step = kept.step
    state.unsaved = []
    state.tally = Tally(**kept.facts["tally"])
