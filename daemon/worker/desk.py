"""The worker's work: takes messages one by one, trains, and makes pictures beside a run, between two of its steps.

Runs in the main thread of the worker process; imports torch. The invariant: every `train` and every job is answered
by `Ended`, `result` or `failed`, unless the process ends first, and then the supervisor knows.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import torch

from daemon.protocol.hypernetworks import CreateHypernetwork
from daemon.protocol.jobs import CreateEmbedding, EvaluateRequest, GenerateRequest
from daemon.worker.board import IDLE, JOB, Board
from daemon.worker.channel import Channel
from daemon.worker.faults import explain
from daemon.worker.jobs import (
    Bench,
    Places,
    Result,
    Work,
    create_network,
    create_word,
    ended,
    make_pictures,
    measure_phrases,
)
from daemon.worker.models import Hypernetworks, LoadedModel, Words
from daemon.worker.wire import Message
from engine.embedding.shelf import Word
from engine.errors import VocableError
from engine.events import Event, PhaseChanged, Progress, event_to_dict
from engine.hypernetwork.shelf import StoredNetwork
from engine.models.catalog import ModelEntry
from engine.models.placement import choose_device, choose_dtype
from engine.preflight import check_recipe
from engine.recipe import build_recipe
from engine.training.job import Control, TrainingJob
from engine.training.journal import can_repeat
from engine.training.loop import train

Command = Literal["pause", "stop"]


class _BrokenOff(Exception):
    """A job is not to be finished."""


class Desk:
    """One worker's state: what waits, what it does now, what it knows."""

    def __init__(self, channel: Channel, board: Board) -> None:
        self._channel = channel
        self._board = board
        self._todo: deque[Message] = deque()
        self._job = ""
        self._is_cancelled = False
        """Whether the job at hand is to be broken off."""
        self._asked: dict[str, Command] = {}
        """Commands to runs that wait in `_todo`."""
        self._run = ""
        self._control: Control | None = None
        self._leaving = False
        self._is_spoilt = False
        """Something unforeseen went wrong: nobody knows what state the model is in, or its memory is what lacks."""
        self._words = Words()
        self._hypernetworks = Hypernetworks()

    def serve(self) -> None:
        """Work until told to leave.

        Raises:
            DeviceLost: nothing works in this process any more; the run at hand is left to the next one.
        """
        self._open()
        while not self._leaving:
            self._board.enter(IDLE, None)
            self._look(wait=not self._todo)
            if self._todo and not self._leaving:
                self._serve_one(self._todo.popleft())

    def _open(self) -> None:
        first = self._channel.receive(wait=True)
        if first is None or first["do"] != "settings":
            raise RuntimeError("the first message must be the settings")
        self._take_places(first)
        device = prepare_device(first.get("device", "auto"))
        self._models = LoadedModel(device, self._tell_model)
        self._channel.send({"type": "ready", "device": describe_device(device)})

    def _take_places(self, settings: Message) -> None:
        self._places = Places(
            models=tuple(map(Path, settings["models"])),
            datasets=tuple(map(Path, settings["datasets"])),
            templates=tuple(map(Path, settings["templates"])),
            latents=Path(settings["latents"]),
            cache=Path(settings["cache"]) if settings.get("cache") else None,
        )

    def _look(self, *, wait: bool) -> None:
        """Take all messages that are there; with `wait`, at least one."""
        message = self._channel.receive(wait=wait)
        while message is not None:
            self._take(message)
            message = self._channel.receive(wait=False)

    def _take(self, message: Message) -> None:
        match message["do"]:
            case "train" | "generate" | "evaluate" | "create" | "create_hypernetwork":
                self._todo.append(message)
            case "pause" | "stop" as command:
                self._ask(message["run"], command)
            case "cancel":
                self._cancel(message["job"])
            case "words":
                self._words.replace(message["words"])
                self._hypernetworks.replace(message.get("hypernetworks", ()))
            case "settings":
                self._take_places(message)
            case "exit":
                self._leaving = True
                if self._control is not None:
                    self._ask(self._run, "pause")
            case other:
                raise RuntimeError(f"the supervisor asks for '{other}', which is not known")

    def _ask(self, run: str, command: Command) -> None:
        """Tell a run to pause or stop; a run that is to stop is not paused any more."""
        if self._control is not None and run == self._run:
            self._control.ask = "stop" if self._control.ask == "stop" else command
        elif any(message.get("run") == run for message in self._todo) and self._asked.get(run) != "stop":
            self._asked[run] = command

    def _cancel(self, job: str) -> None:
        if job == self._job:
            self._is_cancelled = True
        for message in [message for message in self._todo if message.get("job") == job]:
            self._todo.remove(message)
            self._refuse(job)

    def _refuse(self, job: str) -> None:
        error = VocableError("job.cancelled", "The job was cancelled.")
        self._channel.send({"type": "failed", "job": job, "error": error.to_dict()})

    def _serve_one(self, message: Message) -> None:
        if message["do"] == "train":
            self._serve_run(message)
        else:
            self._serve_job(message)
        if self._is_spoilt:
            self._models.release()
            self._is_spoilt = False
        if not self._todo:
            self._channel.send({"type": "idle"})

    def _serve_run(self, message: Message) -> None:
        self._run = message["run"]
        self._control = Control(ask=self._asked.pop(self._run, ""))
        try:
            self._train(message, self._control)
        except Exception as error:
            self._channel.send({"type": "failed", "run": self._run, "error": self._explain(error)})
        finally:
            self._run, self._control = "", None

    def _train(self, message: Message, control: Control) -> None:
        self._board.enter("loading", None)
        self._tell(PhaseChanged("loading"))
        places = self._places
        recipe = build_recipe(message["recipe"])
        resolved = check_recipe(
            recipe,
            models=places.models,
            datasets=places.datasets,
            templates=places.templates,
            cache=places.cache,
            repeats=recipe.data.live and can_repeat(Path(message["folder"])),
        )
        model = self._models.get(resolved.model, choose_dtype(recipe.train.precision, self._models.device))
        job = TrainingJob(recipe, resolved, Path(message["folder"]), places.latents, Path(message["destination"]))

        def words() -> list[Word]:
            return self._words.for_model(resolved.model)

        def networks() -> list[StoredNetwork]:
            return self._hypernetworks.of_model(model)

        running = train(model, job, control=control, words=words, networks=networks, clock=time.time)
        with ended(running) as events:
            for event in events:
                self._mark(event, control)
                if event is not None:
                    self._tell(event)
                self._serve_between_steps()

    def _mark(self, event: Event | None, control: Control) -> None:
        """Note on the board how far the run is."""
        match event:
            case PhaseChanged("training"):
                self._board.enter("first step", control.step)
            case PhaseChanged() if event.phase != self._board.read().phase:
                self._board.enter(event.phase, control.step)
            case None | Progress() if self._board.read().phase == "first step":
                self._board.enter("step", control.step)
            case _:
                self._board.move(control.step)

    def _serve_between_steps(self) -> None:
        """Look at the inbox, and do the jobs that came, while a run stands between two steps."""
        self._look(wait=False)
        while not self._leaving:
            job = next((message for message in self._todo if message["do"] != "train"), None)
            if job is None:
                return
            self._todo.remove(job)
            self._serve_job(job)

    def _serve_job(self, message: Message) -> None:
        """Do a job; one that is broken off because the process leaves is not answered, and goes to the next."""
        job = self._job = message["job"]
        self._is_cancelled = False
        before = self._board.read()
        self._board.enter(JOB, before.step)
        try:
            with closing(self._begin(message)) as work:
                result = self._drive(job, work)
            self._channel.send({"type": "result", "job": job, "result": result})
        except _BrokenOff:
            if self._is_cancelled:
                self._refuse(job)
        except Exception as error:
            self._channel.send({"type": "failed", "job": job, "error": self._explain(error)})
        finally:
            self._job = ""
        # Not when the device was lost: then the board says for good what it was lost under.
        self._board.enter(before.phase, before.step)

    def _begin(self, message: Message) -> Work:
        bench = Bench(
            self._places, self._models, self._words, self._hypernetworks, is_training=self._control is not None
        )
        request = message["request"]
        match message["do"]:
            case "generate":
                return make_pictures(bench, GenerateRequest.model_validate(request))
            case "evaluate":
                return measure_phrases(bench, EvaluateRequest.model_validate(request))
            case "create_hypernetwork":
                destination = Path(message["destination"])
                return create_network(bench, CreateHypernetwork.model_validate(request), destination)
            case _:
                return create_word(bench, CreateEmbedding.model_validate(request), Path(message["destination"]))

    def _drive(self, job: str, work: Work) -> Result:
        while True:
            self._look(wait=False)
            if self._leaving or self._is_cancelled:
                raise _BrokenOff
            try:
                done, total = next(work)
            except StopIteration as end:
                result: Result = end.value
                return result
            self._board.move()
            self._channel.send({"type": "job", "job": job, "done": done, "total": total})

    def _explain(self, error: Exception) -> dict[str, Any]:
        shown = explain(error)
        self._is_spoilt |= shown is not error
        return shown.to_dict()

    def _tell(self, event: Event) -> None:
        self._channel.send({"type": "event", "run": self._run, "event": event_to_dict(event)})

    def _tell_model(self, entry: ModelEntry | None) -> None:
        name, path = (entry.name, str(entry.path)) if entry else ("", "")
        self._channel.send({"type": "model", "name": name, "path": path})


def prepare_device(wanted: str) -> torch.device:
    """Set up torch for results that can be repeated, with every core that this process may use."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return choose_device(wanted)


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
