"""What is said of the chosen run in words: its state, its figures, its newest prompt, and what went wrong."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from daemon.protocol.runs import RunView
from daemon.protocol.states import ENDED
from engine.text import escape
from tui.formats import format_duration, format_moment, format_rate, format_share
from tui.glyphs import Glyphs

_STATE_STYLES = {
    "running": "bold $text-primary",
    "finished": "bold $text-success",
    "failed": "bold $text-error",
    "paused": "bold $text-warning",
}


class RunFigures(Vertical):
    """Title, figures and troubles of one run."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="figures")
        self._glyphs = glyphs

    def compose(self) -> ComposeResult:
        yield Static(id="run-title", markup=False)
        yield Static(id="run-lines", markup=False)
        yield Static(id="run-trouble", markup=False)

    def show(self, run: RunView, state: str, *, moved_at: float | None, now: float) -> None:
        """Args: `state` is glyph and word; `moved_at` when a stalled run last moved, else None."""
        self.query_one("#run-title", Static).update(self._title(run, state))
        lines = [self._figures(run, moved_at, now), *_labelled(run)]
        self.query_one("#run-lines", Static).update(Content("\n").join(lines))
        trouble = self.query_one("#run-trouble", Static)
        found = list_troubles(run)
        trouble.update(Content("\n").join(Content.styled(text, f"$text-{kind}") for kind, text in found))
        trouble.display = bool(found)

    def _title(self, run: RunView, state: str) -> Content:
        facts = [escape(run.phase)] if run.state == "running" and run.phase else []
        facts += [f"id {escape(run.id)}", f"model {escape(run.model)}"]
        dot = f" {self._glyphs.dot} "
        return Content.assemble(
            (state, _STATE_STYLES.get(run.state, "bold")),
            "  ",
            (escape(run.name), "bold"),
            (dot + dot.join(facts), "dim"),
        )

    def _figures(self, run: RunView, moved_at: float | None, now: float) -> Content:
        parts = [f"step {run.step} of {run.steps} ({format_share(run.step, run.steps)})"]
        if run.state == "running":
            if run.steps_per_second:
                parts.append(format_rate(run.steps_per_second))
            if moved_at is not None:
                parts.append(f"no sign of life since {format_moment(moved_at, now)}")
            elif run.seconds_left is not None:
                parts.append(f"{format_duration(run.seconds_left)} left")
            if run.learn_rate is not None:
                parts.append(f"learning rate {run.learn_rate:g}")
        elif run.state == "queued":
            parts.append("waits for the worker")
        elif run.state in ENDED and run.ended_at:
            parts.append(f"ended {format_moment(run.ended_at, now)}")
        return Content(f" {self._glyphs.dot} ".join(parts))


def list_troubles(run: RunView) -> list[tuple[str, str]]:
    """What went wrong, the worst first, as (`error` or `warning`, sentence)."""
    found = []
    if run.error:
        found.append(("error", f"error: {_sentence(run.error.title, run.error.hint)}"))
    if run.warnings:
        newest = run.warnings[-1]
        count = f"{len(run.warnings)}, newest at " if len(run.warnings) > 1 else ""
        found.append(("warning", f"warning ({count}step {newest.step}): {_sentence(newest.title, newest.hint)}"))
    if run.restarts:
        times = "once" if run.restarts == 1 else f"{run.restarts} times"
        found.append(("warning", f"the worker was lost {times}; the run went on from its newest checkpoint"))
    return found


def _sentence(title: str, hint: str) -> str:
    return escape(f"{title} {hint}".strip())


def _labelled(run: RunView) -> list[Content]:
    lines = []
    if run.embedding:
        lines.append((run.kind, run.embedding))
    if run.dataset_change:
        lines.append(("dataset", run.dataset_change))
    if run.prompt:
        lines.append(("prompt", run.prompt))
    return [Content.assemble((f"{label} ", "dim"), escape(text)) for label, text in lines]
