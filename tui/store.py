"""What the screen knows of the service: an immutable view, and pure functions that make the next one.

`app` holds one `View` and replaces it; widgets only read. A frozen display is a view that was kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from daemon.protocol.runs import RunView
from daemon.protocol.service import State, StreamLine, WorkerView
from daemon.protocol.states import ENDED
from tui.glyphs import Glyphs

STALLED_AFTER_S = 300.0
"""A running run that did not move for so long is shown as `stalled?`."""


@dataclass(frozen=True)
class View:
    """Everything from the service that the screen shows."""

    runs: tuple[RunView, ...] = ()
    """Running ones, the queue in its order, then ended ones, newest first."""
    worker: WorkerView = field(default_factory=WorkerView)
    problem: str = ""
    """Why the service is degraded."""
    as_of: float | None = None
    """When the newest of this came in, seconds since 1970; None before the first snapshot."""
    moved_at: dict[str, float] = field(default_factory=dict)
    """When each running run last changed step or phase, as seen here."""

    def run(self, run_id: str) -> RunView | None:
        return next((run for run in self.runs if run.id == run_id), None)

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)


class Outdated(Exception):
    """A line that does not fit what is known; only a new snapshot helps."""


def view_snapshot(state: State, now: float) -> View:
    """The view of a full snapshot."""
    moved_at = {run.id: now for run in state.runs if run.state == "running"}
    return View(order_runs(state.runs), state.worker, state.problem, now, moved_at)


def apply_line(view: View, line: StreamLine, now: float) -> View:
    """The view after one fact or gauge; topics of no interest here only refresh `as_of`.

    Raises:
        Outdated: the line's data does not have the form that this version knows.
    """
    view = replace(view, as_of=now)
    try:
        match line.topic:
            case "run" | "progress":
                return put_run(view, RunView.model_validate(line.data), now)
            case "run.removed":
                removed = str(line.data["id"])
                return replace(view, runs=tuple(run for run in view.runs if run.id != removed))
            case "worker":
                return replace(view, worker=WorkerView.model_validate(line.data))
            case "problem":
                return replace(view, problem=str(line.data.get("problem", "")))
    except (ValidationError, KeyError) as error:
        raise Outdated(line.topic) from error
    return view


def put_run(view: View, run: RunView, now: float) -> View:
    """The view with `run` in the place of its older self, or as a new one."""
    old = view.run(run.id)
    moved_at = dict(view.moved_at)
    if run.state != "running":
        moved_at.pop(run.id, None)
    elif old is None or (old.step, old.phase, old.state) != (run.step, run.phase, run.state):
        moved_at[run.id] = now
    if old is not None and old.state == run.state:
        runs = tuple(run if other.id == run.id else other for other in view.runs)
    else:
        others = [other for other in view.runs if other.id != run.id]
        is_resumed = old is not None and run.state == "queued"
        runs = order_runs([run, *others] if is_resumed else [*others, run])
    return replace(view, runs=runs, moved_at=moved_at)


def order_runs(runs: Iterable[RunView]) -> tuple[RunView, ...]:
    """Running ones, then waiting and paused ones as they come, then ended ones with the newest first."""

    def rank(run: RunView) -> tuple[int, float]:
        if run.state in ENDED:
            return 2, -(run.ended_at or run.created_at)
        return (0 if run.state == "running" else 1), 0.0

    return tuple(sorted(runs, key=rank))


def is_stalled(view: View, run: RunView, now: float) -> bool:
    """Whether a running run has shown no sign for long; loading and saving may take their time too, but not so much."""
    return run.state == "running" and now - view.moved_at.get(run.id, now) > STALLED_AFTER_S


def describe_state(run: RunView, glyphs: Glyphs, *, sending: str = "", stalled: bool = False) -> str:
    """Glyph and word for a run's state; a command on its way shows instead, since the state is about to change."""
    word: str = run.state
    if sending:
        word = "sending" + glyphs.ellipsis
    elif run.asked:
        word = {"pause": "pausing", "stop": "stopping"}.get(run.asked, run.asked) + glyphs.ellipsis
    elif stalled:
        word = "stalled?"
    return f"{glyphs.states[run.state]} {word}"
