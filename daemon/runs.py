"""One run as the service knows it, and how the worker's events change it. Plain data; queue and history use it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.protocol.runs import ErrorInfo, RunView, Warning
from engine.errors import VocableError
from engine.events import (
    CheckpointSaved,
    CopySaved,
    Ended,
    Event,
    PhaseChanged,
    Prepared,
    PreviewSaved,
    Progress,
    Step,
    Warned,
)
from engine.text import escape

MAX_WARNINGS = 50
"""A run keeps its first warnings; the run's own log has all of them."""

MAX_PROMPT = 1000


@dataclass
class Run:
    view: RunView
    recipe: dict[str, Any]
    """As `Recipe.model_dump` gives it."""
    position: float
    """Place in the queue, lowest first."""
    losses: list[Step] = field(default_factory=list)
    """Reported and not yet in the history."""

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def is_waiting(self) -> bool:
        return self.view.state == "queued"


def apply_event(run: Run, event: Event) -> None:
    """Change the view as the event says; `Ended` is the queue's own business and changes nothing here."""
    view = run.view
    match event:
        case PhaseChanged():
            view.phase, view.phase_done, view.phase_total = event.phase, event.done, event.total
        case Prepared():
            view.step, view.steps = event.step, event.steps
            for sentence in event.skipped:
                add_warning(view, "dataset.skipped", sentence)
        case Progress():
            _apply_progress(run, event)
        case PreviewSaved():
            view.preview, view.preview_step = event.path, event.step
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


def leave_device(view: RunView) -> None:
    """Clear what is only true of a run that the worker has."""
    view.phase, view.asked = "", ""
    view.phase_done = view.phase_total = 0
    view.steps_per_second = view.seconds_left = None


def describe_error(error: VocableError) -> ErrorInfo:
    """The error for clients, with everything foreign in it made visible."""
    values = error.to_dict()
    faults = [{key: escape(str(text)) for key, text in fault.items()} for fault in values.get("faults", [])]
    return ErrorInfo(code=error.code, title=escape(error.title, 4000), hint=escape(error.hint), faults=faults)


def read_error(values: dict[str, Any]) -> ErrorInfo:
    """The error that the worker sent; whatever it lacks is filled in."""
    title = str(values.get("title") or "The worker gave no reason.")
    return describe_error(VocableError(str(values.get("code") or "internal"), title, str(values.get("hint") or "")))


def run_folder(runs: Path, date: str, name: str, identifier: str) -> Path:
    return runs / date / f"{name}-{identifier}"


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
    view.prompt = escape(event.prompt, MAX_PROMPT)
