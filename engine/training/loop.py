"""The training run from its first event to its last: a generator that the worker drives step by step.

Called by the worker. A run is a function of recipe, pictures, model and seed: previews, pauses, kills and other work
between two steps change none of its numbers. Previews and checkpoints are the only places that wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from engine.dataset.lookout import Lookout
from engine.dataset.survey import Survey
from engine.embedding.shelf import Word
from engine.errors import VocableError
from engine.events import CopySaved, Ended, Event, PhaseChanged, Prepared, Warned
from engine.hypernetwork.shelf import StoredNetwork
from engine.models.load import Model
from engine.training.batches import BatchMaker, prefetch
from engine.training.gather import gather_pictures
from engine.training.job import Control, TrainingJob
from engine.training.live import Pictures, Watch, summarize
from engine.training.memory import memory_error
from engine.training.outputs import LOSS_TABLES, LossTable, RunLog, copy_path, deliver, write_settings
from engine.training.prepare import (
    check_caption,
    check_captions,
    check_schedule,
    describe_run,
    find_changes,
    find_word,
)
from engine.training.preview import make_previews
from engine.training.product import save_product, values_of
from engine.training.progress import Reporter
from engine.training.room import arranged
from engine.training.state import RunState, create_state, export_product, resume, retell, roll_back, save_state
from engine.training.step import train_step

Words = Callable[[], Sequence[Word]]
Networks = Callable[[], Sequence[StoredNetwork]]


@dataclass(frozen=True)
class _Surroundings:
    """What a run is given besides its state."""

    control: Control
    words: Words
    networks: Networks
    clock: Callable[[], float]
    pictures: Pictures
    batches: BatchMaker
    """Of the pictures at the start."""
    table: LossTable


def train(
    model: Model,
    job: TrainingJob,
    *,
    control: Control,
    words: Words,
    networks: Networks = tuple,
    clock: Callable[[], float],
    watch: Callable[[Survey], Watch] = Lookout,
) -> Iterator[Event | None]:
    """Train the job's word or hypernetwork, going on from its newest checkpoint when there is one.

    Yields None after a step that has nothing to tell, so that the worker can look at its inbox, or even make a picture,
    between any two steps. Closing the generator leaves the run as a kill would: it goes on from its newest checkpoint.

    Args:
        words: the other usable words, for previews; training prompts see only the word being trained.
        networks: hypernetworks that the preview's prompts may name.
        clock: seconds since 1970, UTC.
        watch: begins to look at the folder of a live dataset.

    Raises:
        VocableError: `training.*`, `memory.full`, `disk.*`, `dataset.*`, `resume.impossible`.
    """
    log = RunLog(job.folder, clock)
    try:
        with closing(_train(model, job, control, words, networks, clock, watch)) as events:
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
    model: Model,
    job: TrainingJob,
    control: Control,
    words: Words,
    networks: Networks,
    clock: Callable[[], float],
    watch: Callable[[Survey], Watch],
) -> Generator[Event | None]:
    yield PhaseChanged("loading")
    state = create_state(model, job)
    kept, warnings = resume(state)
    control.step = state.step
    yield from warnings
    material = yield from gather_pictures(model, job, control, kept.facts if kept else None)
    if material is None:
        yield from _end(state, control)
        return
    lexicon = find_word(model, job)
    entries = list(material.manifest.values())
    yield from check_captions(job, lexicon, [entry.caption for entry in entries[: 1 if material.is_replayed else None]])
    recipe = job.recipe
    table = LossTable(
        job.folder,
        every=recipe.save.csv_every,
        epoch_of=lambda step: pictures.epochs.epoch_of(step),
        name=LOSS_TABLES[recipe.kind],
    )
    pictures = Pictures(
        model,
        job,
        material,
        reached=table.find_last_step() if kept else 0,
        last_step=state.schedule.last_step,
        check=lambda caption: check_caption(job, lexicon, caption),
        watch=watch,
    )
    with closing(pictures):
        state.facts, state.describe_pictures = describe_run(model, job), pictures.describe
        if kept is None:
            yield from check_schedule(job, state.schedule, values_of(state.start))
        else:
            now = state.facts | ({} if material.is_replayed else {"pictures": summarize(material.manifest)})
            yield from find_changes(kept.facts["run"], now, material.fault)
        count = len(pictures.epochs.stretch_at(state.step).samples)
        write_settings(job, pictures=count, initial_step=state.step, clock=clock)
        yield Prepared(count, material.skipped, state.step, state.schedule.last_step)
        if kept is not None:
            yield from retell(state, kept)
        if not state.step:
            yield save_state(state)
        batches = BatchMaker(model, recipe.name, lexicon, pictures.epochs, job.resolved.lines)
        with arranged(model, job, lambda facts: RunLog(job.folder, clock).write("memory", facts)):
            yield from _train_to_end(state, _Surroundings(control, words, networks, clock, pictures, batches, table))
    yield from _end(state, control)


def _train_to_end(state: RunState, around: _Surroundings) -> Iterator[Event | None]:
    """Train to the last step or to a command; in between the run may go back, or its pictures change."""
    around.table.cut(state.step)
    while state.step < state.schedule.last_step and not around.control.ask:
        yield from _train_on(state, around)
        if state.tally.diverging:
            around.pictures.go_back(state.step)
            yield from roll_back(state)
            around.table.cut(state.step)
            yield from find_changes({}, {}, around.pictures.find_fault(state.step))
        elif around.pictures.is_due(state.step) and not around.control.ask:
            yield from around.pictures.change(state.step)


def _train_on(state: RunState, around: _Surroundings) -> Iterator[Event | None]:
    """Train to the end, to a command, to a change of the pictures, or until the run diverges; all losses are read by
    then."""
    reporter = Reporter(state, around.table, around.clock)
    batches = replace(around.batches, epochs=around.pictures.epochs)
    yield PhaseChanged("training")
    with closing(prefetch(batches.make, state.step, state.schedule.last_step)) as ahead:
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
            yield from around.pictures.tend()
            if around.control.ask or around.pictures.is_due(state.step):
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
        yield from make_previews(
            state.model,
            state.job,
            export_product(state),
            step=state.step,
            training_prompt=prompt,
            words=around.words,
            networks=around.networks,
            control=around.control,
        )
        if state.step < state.schedule.last_step:
            yield PhaseChanged("training")


def _save_copy(state: RunState) -> Event:
    path = copy_path(state.job, state.step)
    try:
        save_product(path, replace(export_product(state), name=path.stem))
    except VocableError as error:
        return Warned("copy.failed", f"The copy of step {state.step} was not written: {error.title}", error.hint)
    return CopySaved(state.step, str(path))


def _end(state: RunState, control: Control) -> Iterator[Event]:
    """Leave a checkpoint and, unless the run is only paused, the word or hypernetwork in its place."""
    finished = state.step >= state.schedule.last_step
    yield PhaseChanged("saving")
    if state.facts and state.saved_step != state.step:
        yield save_state(state)
    if control.ask == "pause" and not finished:
        yield Ended("paused", state.step, "")
        return
    outcome = "finished" if finished else "stopped"
    if not state.step:
        yield Ended(outcome, 0, "")  # nothing was learnt, so nothing takes the place of an older file
        return
    deliver(state.job, export_product(state))
    yield Ended(outcome, state.step, str(state.job.destination))
