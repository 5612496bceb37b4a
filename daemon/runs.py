"""Runs as the service knows them, their order, and how the worker's events change one. Queue and history use it."""

from __future__ import annotations

import math
import secrets
import string
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.protocol.runs import ErrorInfo, RunView, Warning
from daemon.protocol.states import ENDED, RunCommand, RunState
from daemon.worker.board import Mark
from engine.errors import VocableError
from engine.events import (
    CheckpointSaved,
    CopySaved,
    DatasetChanged,
    Ended,
    Event,
    PhaseChanged,
    Prepared,
    PreviewSaved,
    Progress,
    Step,
    Warned,
)
from engine.recipe import Recipe
from engine.text import escape

MAX_WARNINGS = 50
"""A run keeps its first warnings; the run's own log has all of them."""

MAX_PROMPT = 1000


@dataclass
class Run:
    view: RunView
    """As it is; a change of state may not be in the history yet."""
    recipe: dict[str, Any]
    """As `Recipe.model_dump` gives it."""
    position: float
    """Place in the queue, lowest first."""
    losses: list[Step] = field(default_factory=list)
    """Reported and not yet in the history."""
    outcome: RunState | None = None
    """How it ended, while its word is not known to the library yet."""
    lost_at: Mark | None = None
    """Where it was when it last brought a worker down."""
    shown: RunView = field(init=False)
    """What clients were told last, and are told when they ask."""

    def __post_init__(self) -> None:
        self.shown = self.snapshot()

    @property
    def id(self) -> str:
        return self.view.id

    def snapshot(self) -> RunView:
        """The view as it is now, which later changes leave alone."""
        return self.view.model_copy(update={"warnings": list(self.view.warnings)})


class RunTable:
    """All runs, those of the history too. One in trash/ is found by `find_removed` only."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        known = {run.id: run for run in runs}
        self._runs = {identifier: run for identifier, run in known.items() if not is_removed(run.view)}
        self._removed = {identifier: run for identifier, run in known.items() if is_removed(run.view)}

    def add(self, run: Run) -> None:
        self._runs[run.id] = run

    def get(self, identifier: Any) -> Run | None:
        return self._runs.get(identifier)

    def get_any(self, identifier: str) -> Run | None:
        """The run, also when it is in trash/."""
        return self._runs.get(identifier) or self._removed.get(identifier)

    def find(self, reference: str) -> Run:
        """The run with this id, the newest of this name, or the only one whose id begins so.

        Raises:
            VocableError: `run.unknown`, or `run.ambiguous` with the ids that would fit.
        """
        found = _find(self._runs, reference)
        if found is None:
            title = f"There is no run '{escape(reference, 100)}'."
            raise VocableError("run.unknown", title, "List them with: vocable runs")
        return found

    def find_removed(self, reference: str) -> Run:
        """As `find`, among the runs in trash/."""
        found = _find(self._removed, reference)
        if found is None:
            title = f"There is no run '{escape(reference, 100)}' in trash/."
            raise VocableError("run.unknown", title, "Look into trash/runs/ in the workspace.")
        return found

    def everything(self) -> list[Run]:
        """All runs, those in trash/ too."""
        return [*self._runs.values(), *self._removed.values()]

    def place(self, run: Run) -> None:
        """Count a run among those in trash/ or among the others, as its folder says."""
        self._runs.pop(run.id, None)
        self._removed.pop(run.id, None)
        (self._removed if is_removed(run.view) else self._runs)[run.id] = run

    def ordered(self) -> list[RunView]:
        """Running, queued, paused, then ended ones, newest first, as clients see them."""
        order = {"running": 0, "queued": 1, "paused": 2}

        def key(run: Run) -> tuple[int, float]:
            place = order.get(run.shown.state, 3)
            return place, -(run.shown.ended_at or run.shown.created_at) if place == 3 else run.position

        return [run.shown for run in sorted(self._runs.values(), key=key)]

    def shown_order(self) -> list[str]:
        """Ids of the queued runs, the next one first, as clients see them."""
        return [view.id for view in self.ordered() if view.state == "queued"]

    def next_waiting(self) -> Run | None:
        """The head of the queue."""
        queued = (run for run in self._runs.values() if run.view.state == "queued")
        return min(queued, key=lambda run: run.position, default=None)

    def waiting(self) -> list[Run]:
        """The queue, its head first."""
        queued = [run for run in self._runs.values() if run.view.state == "queued"]
        return sorted(queued, key=lambda run: run.position)

    def unfinished(self) -> list[Run]:
        return [run for run in self._runs.values() if run.view.state not in ENDED]

    def namesake(self, kind: str, name: str, *, but: str = "") -> Run | None:
        """Another unfinished run that will write the same file."""
        same = (run for run in self.unfinished() if run.view.name.casefold() == name.casefold() and run.id != but)
        return next((run for run in same if run.view.kind == kind), None)

    def position_at_head(self) -> float:
        return min((run.position for run in self._runs.values()), default=0.0) - 1

    def position_at_end(self) -> float:
        return max((run.position for run in self._runs.values()), default=0.0) + 1

    def new_id(self) -> str:
        """Six characters that no run has: a letter, then letters and digits."""
        while True:
            letters = string.ascii_lowercase
            identifier = secrets.choice(letters) + "".join(secrets.choice(letters + string.digits) for _ in range(5))
            if self.get_any(identifier) is None:
                return identifier


def apply_event(run: Run, event: Event) -> None:
    """Change the view as the event says; `Ended` is the queue's own business and changes nothing here."""
    view = run.view
    match event:
        case PhaseChanged():
            view.phase, view.phase_done, view.phase_total = event.phase, event.done, event.total
        case Prepared():
            view.step, view.steps = event.step, event.steps
            run.losses = [step for step in run.losses if step.step <= event.step]
        case Progress():
            _apply_progress(run, event)
        case PreviewSaved():
            view.preview, view.preview_step = event.path, event.step
        case DatasetChanged():
            view.dataset_change = escape(event.title)
        case Warned():
            add_warning(view, event.code, event.title, event.hint)
        case CopySaved() | CheckpointSaved() | Ended():
            pass


def add_warning(view: RunView, code: str, title: str, hint: str = "") -> None:
    """Add a warning unless the run has the same one, or enough of them."""
    warning = Warning(code=code, title=escape(title), hint=escape(hint), step=view.step)
    known = {(other.code, other.title) for other in view.warnings}
    if (warning.code, warning.title) not in known and len(view.warnings) < MAX_WARNINGS:
        view.warnings.append(warning)


def leave_device(view: RunView, *, asked: str = "") -> None:
    """Clear what is only true of a run that the worker has; `asked` is what it still has to do there."""
    view.phase, view.asked = "", asked
    view.phase_done = view.phase_total = 0
    view.steps_per_second = view.seconds_left = None


def new_run(recipe: Recipe, identifier: str, runs: Path, position: float, *, now: float) -> Run:
    """A queued run whose folder is `runs`/DATE/NAME-ID, with the local date of `now` (seconds since 1970)."""
    date = time.strftime("%Y-%m-%d", time.localtime(now))
    view = RunView(
        id=identifier,
        name=recipe.name,
        kind=recipe.kind,
        model=escape(recipe.model),
        state="queued",
        steps=recipe.train.steps,
        folder=str(runs / date / f"{recipe.name}-{identifier}"),
        created_at=now,
    )
    return Run(view, recipe.model_dump(mode="json", exclude_none=True), position)


def is_removed(view: RunView) -> bool:
    """Whether the run's folder is trash/runs/DATE/NAME-ID; what is in trash/ keeps its row in the history."""
    return Path(view.folder).parts[-4:-2] == ("trash", "runs")


def is_resting(view: RunView) -> bool:
    """Whether the run is paused because the disk is full, and goes on by itself when there is room."""
    return view.state == "paused" and view.error is not None and view.error.code == "disk.full"


def is_repeated(view: RunView, command: RunCommand) -> bool:
    """Whether the run is, or is on its way, where `command` leads."""
    if command == "resume":
        return view.state in ("queued", "running") and not view.asked
    if command == "pause" and is_resting(view):
        return False  # it stays paused then
    return view.asked == command or view.state == {"pause": "paused", "stop": "stopped"}[command]


def describe_error(error: VocableError) -> ErrorInfo:
    """The error for clients, with everything foreign in it made visible."""
    values = error.to_dict()
    faults = [{key: escape(str(text)) for key, text in fault.items()} for fault in values.get("faults", [])]
    return ErrorInfo(code=error.code, title=escape(error.title, 4000), hint=escape(error.hint), faults=faults)


def read_error(values: dict[str, Any]) -> ErrorInfo:
    """The error that the worker sent; whatever it lacks is filled in."""
    title = str(values.get("title") or "The worker gave no reason.")
    return describe_error(VocableError(str(values.get("code") or "internal"), title, str(values.get("hint") or "")))


def _find(runs: Mapping[str, Run], reference: str) -> Run | None:
    if reference in runs:
        return runs[reference]
    named = [run for run in runs.values() if run.view.name == reference]
    if named:
        return max(named, key=lambda run: run.view.created_at)
    fitting = [run for identifier, run in runs.items() if reference and identifier.startswith(reference)]
    if len(fitting) > 1:
        ids = ", ".join(run.id for run in fitting[:5])
        title = f"Several runs begin with '{escape(reference, 100)}': {ids}."
        raise VocableError("run.ambiguous", title, "Type more of the id.")
    return fitting[0] if fitting else None


def _apply_progress(run: Run, event: Progress) -> None:
    view = run.view
    run.losses += event.losses
    finite = [step.loss for step in event.losses if step.loss is not None]
    if finite:
        view.loss = finite[-1]
    view.step, view.steps = event.step, event.steps
    view.mean_loss = event.mean_loss if math.isfinite(event.mean_loss) else None
    view.learn_rate = event.learn_rate
    speed = event.steps_per_second
    view.steps_per_second = speed
    view.seconds_left = (event.steps - event.step) / speed if speed > 0 else None
    view.prompt = escape(event.prompt, MAX_PROMPT) or view.prompt
