"""The live screen: the list of runs, and everything about the chosen one.

Reads the app's view; asks the service only for the chosen run's losses, and no more often than they can be seen.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from daemon.protocol.runs import LossPoint, RunView
from engine.errors import VocableError
from engine.text import escape
from tui.commands import explain_key, find_command, is_offered, make_bindings
from tui.formats import shorten_path
from tui.messages import ViewChanged
from tui.pictures import Picture
from tui.screens.confirm import ConfirmScreen
from tui.store import describe_state, is_stalled
from tui.widgets.loss_plot import MOST_POINTS, LossPlot
from tui.widgets.notice_line import NoticeLine
from tui.widgets.preview import Preview
from tui.widgets.run_figures import RunFigures
from tui.widgets.runs_table import RunsTable
from tui.widgets.status_line import StatusLine
from tui.widgets.too_small import TooSmall

if TYPE_CHECKING:
    from tui.app import VocableApp

LOSSES_INTERVAL_S = 2.0
"""Least time between two requests for losses, and so between two redraws of the plot."""
STALL_CHECK_S = 30.0


class RunsScreen(Screen[None]):
    """List over detail on narrow terminals, list beside detail on wide ones."""

    BINDINGS: ClassVar[list[BindingType]] = make_bindings("runs")
    AUTO_FOCUS = "#runs"
    app: VocableApp

    def __init__(self) -> None:
        super().__init__()
        self._points: list[LossPoint] = []
        self._points_of: tuple[str, str] = ("", "")
        """Id and state of the run that `_points` were fetched for."""
        self._points_step = -1
        self._asked_at = float("-inf")
        self._is_asking = False
        self._preview_of: Picture | None = None

    def compose(self) -> ComposeResult:
        glyphs = self.app.options.glyphs
        yield StatusLine(glyphs)
        with Container(id="panes"):
            yield RunsTable(glyphs, self._describe)
            yield Static(id="empty", markup=False)
            with Vertical(id="detail"):
                yield RunFigures(glyphs)
                with Container(id="body"):
                    yield LossPlot(glyphs)
                    yield Preview(self.app.terminal)
                yield Static(id="caption", markup=False)
        yield NoticeLine()
        yield Footer(compact=True, show_command_palette=False)
        yield TooSmall()

    def on_mount(self) -> None:
        self.set_interval(STALL_CHECK_S, self._check_stalled)
        self.refresh_all()

    def on_screen_resume(self) -> None:
        self.refresh_all()

    def on_resize(self, _: events.Resize) -> None:
        self.call_after_refresh(self.refresh_all)

    @on(ViewChanged)
    def refresh_all(self) -> None:
        """Show the app's view as it is now."""
        with self.app.batch_update(), suppress(NoMatches):
            self.refresh_lines()
            view, is_stale = self.app.shown_view, self.app.is_stale
            self.set_class(is_stale, "-stale")
            table = self.query_one(RunsTable)
            table.show(view.runs, is_stale=is_stale)
            self.app.chosen = table.chosen
            self.set_class(not view.runs, "-empty")
            self.query_one("#empty", Static).update(Content(self._explain_empty()))
            self._show_chosen()

    def refresh_lines(self) -> None:
        """Show the state of the line to the service and the newest notice."""
        with suppress(NoMatches):
            self.app.fill_status(self.query_one(StatusLine))
            self.query_one(NoticeLine).show(*self.app.current_notice())

    @on(DataTable.RowHighlighted)
    def _follow_cursor(self) -> None:
        chosen = self.query_one(RunsTable).chosen
        if chosen != self.app.chosen:
            self.app.chosen = chosen
            self._asked_at, self._is_asking = float("-inf"), False
            self._show_chosen()
            self.app.update_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        command = find_command(action)
        return True if command is None else is_offered(command, self.app.situation)

    def on_key(self, event: events.Key) -> None:
        reason = explain_key(event.key, "runs", self.app.situation)
        if reason:
            self.app.say(reason, "warning")

    def action_new_run(self) -> None:
        from tui.screens.new_run import NewRunScreen

        def choose(run: RunView | None) -> None:
            if run is not None:
                self.refresh_all()
                self.query_one(RunsTable).choose(run.id)

        self.app.push_screen(NewRunScreen(), choose)

    def action_pause_run(self) -> None:
        self._send("pause")

    def action_resume_run(self) -> None:
        self._send("resume")

    @work(exclusive=True, group="question")
    async def action_stop_run(self) -> None:
        run = self.app.situation.run
        if run is None:
            return
        question = f"Stop {escape(run.name)} at step {run.step} of {run.steps}?"
        consequence = "Its embedding is saved as it is then; resuming it later goes on from there."
        if await self.app.push_screen_wait(ConfirmScreen(question, consequence)):
            self.app.send_command(run.id, run.name, "stop")

    def action_freeze(self) -> None:
        self.app.toggle_freeze()

    def action_cycle_pictures(self) -> None:
        preview = self.query_one(Preview)
        preview.switch(self.app.terminal.after(preview.renderer))
        self.app.say(f"Previews are shown: {preview.renderer}.")

    def action_copy_path(self) -> None:
        run = self.app.situation.run
        if run is not None:
            path = run.embedding or run.preview or run.folder
            self.app.copy_to_clipboard(path)
            self.app.say(f"Copied {escape(path)}")

    @on(Preview.Loaded)
    def _show_caption(self, event: Preview.Loaded) -> None:
        self._preview_of = event.picture
        self._show_chosen()

    def _send(self, command: str) -> None:
        run = self.app.situation.run
        if run is not None:
            self.app.send_command(run.id, run.name, command)

    def _describe(self, run: RunView) -> str:
        sending = self.app.sending.get(run.id, "")
        return describe_state(run, self.app.options.glyphs, sending=sending, stalled=self._is_stalled(run))

    def _is_stalled(self, run: RunView) -> bool:
        return not self.app.is_stale and is_stalled(self.app.shown_view, run, self.app.clock())

    def _show_chosen(self) -> None:
        run = self.app.shown_view.run(self.app.chosen or "")
        if run is None:
            return
        if self._points_of[0] != run.id:
            self._points, self._points_of, self._points_step = [], (run.id, ""), -1
        # While the program closes, widgets go away before the tasks that feed them.
        with suppress(NoMatches):
            moved_at = self.app.shown_view.moved_at.get(run.id) if self._is_stalled(run) else None
            self.query_one(RunFigures).show(run, self._describe(run), moved_at=moved_at, now=self.app.clock())
            self.query_one(LossPlot).show(run, self._points)
            self.query_one(Preview).show(run.preview)
            self.query_one("#caption", Static).update(self._caption(run))
            self._want_losses(run)

    def _caption(self, run: RunView) -> Content:
        if not run.preview:
            return Content("")
        glyphs = self.app.options.glyphs
        parts = [f"step {run.preview_step}"]
        picture = self._preview_of
        if picture is not None and str(picture.path) == run.preview:
            parts += [f"seed {picture.seed}"] if picture.seed else []
            parts += [picture.prompt] if picture.prompt else []
        words = Content.assemble(("preview ", "dim"), f" {glyphs.dot} ".join(parts), "  ")
        room = max(20, self.query_one("#caption").size.width - words.cell_length - 1)
        path = escape(run.preview)
        shown = shorten_path(path, room, glyphs) if cell_len(path) > room else path
        return Content.assemble(words, (shown, "dim"))

    def _want_losses(self, run: RunView) -> None:
        """Ask for losses when the curve would look different, and not too soon after the last time."""
        is_new = self._points_of != (run.id, run.state)
        column = max(1, run.steps // MOST_POINTS)
        if self._is_asking or self.app.link.client is None or self.app.is_frozen:
            return
        if not is_new and run.step - self._points_step < column:
            return
        waited = time.monotonic() - self._asked_at
        if waited < LOSSES_INTERVAL_S:
            self._is_asking = True
            self.set_timer(LOSSES_INTERVAL_S - waited, self._ask_later)
        else:
            self._fetch_losses(run)

    def _ask_later(self) -> None:
        self._is_asking = False
        self._show_chosen()

    @work(exclusive=True, group="losses")
    async def _fetch_losses(self, run: RunView) -> None:
        client = self.app.link.client
        if client is None:
            return
        self._asked_at = time.monotonic()
        points = min(MOST_POINTS, 2 * max(20, self.size.width))
        try:
            series = await client.losses(run.id, points)
        except VocableError as error:
            # The line's own task notices when it is down; anything else is worth telling.
            if not error.code.startswith("link."):
                self.app.say(f"{error.title} {error.hint}".strip(), "error")
            return
        if run.id == self.app.chosen:
            self._points, self._points_of, self._points_step = series.points, (run.id, run.state), run.step
            self._show_chosen()

    def _explain_empty(self) -> str:
        if self.app.shown_view.as_of is not None:
            return "No runs yet.\nPress n to teach a new word."
        return "Nothing to show yet.\n" + self.app.link_reason()

    def _check_stalled(self) -> None:
        if any(self._is_stalled(run) for run in self.app.shown_view.runs):
            self.refresh_all()
