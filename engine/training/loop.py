"""The training run from its first event to its last: a generator that the worker drives step by step.

Called by the worker. A run is a function of recipe, pictures, model and seed: previews, pauses, kills and other work
between two steps change none of its numbers. Previews and checkpoints are the only places that wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from engine.embedding.shelf import Word
from engine.embedding.write import save_embedding
from engine.errors import VocableError
from engine.events import CopySaved, Ended, Event, PhaseChanged, Prepared, Warned
from engine.models.load import Model
from engine.training.batches import BatchMaker, prefetch
from engine.training.epochs import make_epochs
from engine.training.job import Control, TrainingJob
from engine.training.memory import memory_error
from engine.training.outputs import LossTable, RunLog, copy_path, deliver, write_settings
from engine.training.prepare import check_prompts, check_schedule, describe_run, encode_pictures, find_changes
from engine.training.preview import make_previews
from engine.training.progress import Reporter
from engine.training.state import RunState, create_state, export_embedding, resume, roll_back, save_state
from engine.training.step import train_step

Words = Callable[[], Sequence[Word]]


@dataclass(frozen=True)
class _Surroundings:
    """What a run is given besides its state."""

    control: Control
    words: Words
    clock: Callable[[], float]
    batches: BatchMaker
    table: LossTable


def train(
    model: Model, job: TrainingJob, *, control: Control, words: Words, clock: Callable[[], float]
) -> Iterator[Event | None]:
    """Train the job's word, going on from its newest checkpoint when there is one.

    Yields None after a step that has nothing to tell, so that the worker can look at its inbox, or even make a picture,
    between any two steps. Closing the generator leaves the run as a kill would: it goes on from its newest checkpoint.

    Args:
        words: the other usable words, for previews; training prompts see only the word being trained.
        clock: seconds since 1970, UTC.

    Raises:
        VocableError: `training.*`, `memory.full`, `disk.*`, `dataset.*`, `resume.impossible`.
    """
    log = RunLog(job.folder, clock)
    try:
        with closing(_train(model, job, control, words, clock)) as events:
            for event in events:
                if event is not None:
                    log.write_event(event)
                yield event
    except Exception as error:
        shown = memory_error(error, model, job) or error
        with suppress(VocableError):  # a log that cannot be written must not hide the failure
            log.write("failed", shown.to_dict() if isinstance(shown, VocableError) else {"error": repr(shown)})
        if shown is error:
            raise
        raise shown from error


def _train(
    model: Model, job: TrainingJob, control: Control, words: Words, clock: Callable[[], float]
) -> Generator[Event | None]:
    yield PhaseChanged("loading")
    state = create_state(model, job)
    kept, warnings = resume(state)
    control.step = state.step
    yield from warnings
    material = yield from encode_pictures(model, job, control)
    if material is None:
        yield from _end(state, control)
        return
    recipe = job.recipe
    lexicon = check_prompts(model, job, material)
    state.facts = describe_run(model, job, material)
    if kept is None:
        yield from check_schedule(job, state.schedule, export_embedding(state).vectors)
    else:
        yield from find_changes(kept.facts["run"], state.facts)
    epochs = make_epochs(material.samples, batch_size=recipe.train.batch_size, seed=recipe.train.seed)
    batches = BatchMaker(model, recipe.name, lexicon, epochs, job.resolved.lines)
    table = LossTable(job.folder, every=recipe.save.csv_every, epoch_of=epochs.epoch_of)
    write_settings(job, pictures=len(material.samples), initial_step=state.step, clock=clock)
    yield Prepared(len(material.samples), material.skipped, state.step, state.schedule.last_step)
    if not state.step:
        yield save_state(state)
    around = _Surroundings(control, words, clock, batches, table)
    while state.step < state.schedule.last_step and not control.ask:
        table.cut(state.step)
        yield from _train_on(state, around)
        if state.tally.diverging:
            yield from roll_back(state)
    yield from _end(state, control)


def _train_on(state: RunState, around: _Surroundings) -> Iterator[Event | None]:
    """Train to the end, to a command, or until the run diverges; all losses are read by then."""
    reporter = Reporter(state, around.table, around.clock)
    yield PhaseChanged("training")
    with closing(prefetch(around.batches.make, state.step, state.schedule.last_step)) as ahead:
        for batch in ahead:
            learn_rate = state.learn_rate
            values = train_step(state.model, state.learner, batch, learn_rate)
            state.step += 1
            around.control.step = state.step
            reporter.push(learn_rate, values, batch.texts[0])
            writes = _writes_something(state)
            yield reporter.take(wait=writes)
            if state.tally.diverging:
                return
            if writes:
                yield from _write_outputs(state, around, batch.texts[0])
                reporter.restart()
            if around.control.ask:
                yield reporter.take(wait=True)
                return


def _writes_something(state: RunState) -> bool:
    save = state.job.recipe.save
    cadences = (save.every, save.checkpoint_every, save.images_every)
    return state.step == state.schedule.last_step or any(map(state.is_due, cadences))


def _write_outputs(state: RunState, around: _Surroundings, prompt: str) -> Iterator[Event | None]:
    """Write what is due: the copy, then the checkpoint, then the preview, which is the only one that may fail."""
    save = state.job.recipe.save
    if state.is_due(save.every):
        yield _save_copy(state)
    if state.is_due(save.checkpoint_every) or state.step == state.schedule.last_step:
        around.table.sync()
        yield save_state(state)
    if state.is_due(save.images_every):
        yield PhaseChanged("preview")
        embedding = export_embedding(state)
        yield from make_previews(
            state.model,
            state.job,
            embedding,
            training_prompt=prompt,
            words=around.words,
            control=around.control,
        )
        if state.step < state.schedule.last_step:
            yield PhaseChanged("training")


def _save_copy(state: RunState) -> Event:
    embedding = export_embedding(state)
    path = copy_path(state.job, state.step)
    try:
        save_embedding(path, replace(embedding, name=path.stem))
    except VocableError as error:
        return Warned("copy.failed", f"The copy of step {state.step} was not written: {error.title}", error.hint)
    return CopySaved(state.step, str(path))


def _end(state: RunState, control: Control) -> Iterator[Event]:
    """Leave a checkpoint and, unless the run is only paused, the word in its place."""
    finished = state.step >= state.schedule.last_step
    yield PhaseChanged("saving")
    if state.facts and state.saved_step != state.step:
        yield save_state(state)
    if control.ask == "pause" and not finished:
        yield Ended("paused", state.step, "")
        return
    outcome = "finished" if finished else "stopped"
    if not state.step:
        yield Ended(outcome, 0, "")  # nothing was learnt, so nothing takes the place of an older word
        return
    deliver(state.job, export_embedding(state))
    yield Ended(outcome, state.step, str(state.job.destination))
