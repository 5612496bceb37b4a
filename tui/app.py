"""The terminal program: holds the view of the service and the line to it, and shows screens.

`run` opens it for a workspace and is what `vocable` without a command calls. Tasks post messages; only handlers here
change the view, and screens are told at most twice a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

import platformdirs
from rich.text import Text
from textual import events, on, work
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.command import CommandPalette
from textual.geometry import Size
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input
from textual.worker import WorkerFailed

from daemon.paths import Workspace
from daemon.protocol.runs import RunView
from daemon.protocol.states import RunCommand
from engine.errors import VocableError
from engine.text import escape
from tui.commands import (
    COMMANDS,
    Command,
    Scope,
    Situation,
    find_command,
    is_offered,
    make_bindings,
)
from tui.link import SILENCE_TIMEOUT_S, Link, describe_link
from tui.messages import LineReceived, LinkChanged, SnapshotTaken, ViewChanged
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import HelpScreen
from tui.screens.runs import RunsScreen
from tui.signals import leave_on_signals
from tui.store import Outdated, View, apply_line, put_run, view_snapshot
from tui.terminal import Terminal, examine_terminal
from tui.theme import VOCABLE_DARK, VOCABLE_LIGHT, Options, read_options
from tui.widgets.notice_line import Kind
from tui.widgets.status_line import StatusLine
from tui.widgets.too_small import HORIZONTAL_BREAKPOINTS, VERTICAL_BREAKPOINTS

if TYPE_CHECKING:
    from daemon.client import Client

UPDATE_INTERVAL_S = 0.5
"""Least time between two updates of the screen that nobody asked for."""
NOTE_LASTS_S = 20.0
"""How long something unimportant stays on the notice line, at least."""
LEAVE_WITHIN_S = 5.0
"""Time for the second ctrl+c."""


def run(workspace: Workspace) -> int:
    """Open the terminal program and return its exit code once it is left: 0, or 128 + the signal that ended it.

    Raises:
        VocableError: `terminal.absent` without a terminal, `usage.option` for an impossible environment variable.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise VocableError(
            "terminal.absent",
            "The terminal program needs a terminal.",
            "Use a command instead; vocable --help lists them.",
        )
    options = read_options(os.environ)
    cache = platformdirs.user_cache_path("vocable") / "terminal.json"
    terminal = examine_terminal(options.pictures, os.environ, sys.stdin.fileno(), sys.stdout.fileno(), cache)
    app = VocableApp(workspace, options, terminal)
    app.run(mouse=options.mouse)
    with contextlib.suppress(OSError):
        sys.stderr.write(app.parting_words() + "\n")
    return app.return_code or 0


class VocableApp(App[None]):
    """One workspace on one terminal."""

    TITLE = "Vocable"
    CSS_PATH: ClassVar[list[str | PurePath]] = [
        "app.tcss",
        *(f"screens/{name}.tcss" for name in ("runs", "new_run", "confirm", "help")),
    ]
    BINDINGS: ClassVar[list[BindingType]] = make_bindings("program")
    HORIZONTAL_BREAKPOINTS = HORIZONTAL_BREAKPOINTS
    VERTICAL_BREAKPOINTS = VERTICAL_BREAKPOINTS

    def __init__(
        self,
        workspace: Workspace,
        options: Options,
        terminal: Terminal,
        *,
        clock: Callable[[], float] = time.time,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
    ) -> None:
        # Told before the theme is chosen, so that NO_COLOR leaves colours out and makes no illegible greys of them.
        super().__init__(ansi_color=True if options.no_color and options.theme.startswith("ansi-") else None)
        for theme in (VOCABLE_DARK, VOCABLE_LIGHT):
            self.register_theme(theme)
        # Named by TEXTUAL_THEME, one of ours counts as chosen already, before it could be found; so choose twice.
        self.theme = "textual-dark"
        self.theme = options.theme if options.theme in self.available_themes else VOCABLE_DARK.name
        self.animation_level = "none"
        self.workspace = workspace
        self.options = options
        self.terminal = terminal
        self.clock = clock
        self.view = View()
        self.chosen: str | None = None
        """Id of the run under the cursor."""
        self.sending: dict[str, str] = {}
        """Commands on their way, by run id."""
        self.link = Link(
            self._make_client,
            on_state=lambda state: self.post_message(LinkChanged(state)),
            on_snapshot=lambda state: self.post_message(SnapshotTaken(state)),
            on_line=lambda line: self.post_message(LineReceived(line)),
            clock=clock,
            silence_timeout_s=silence_timeout_s,
        )
        self.link_state = self.link.state
        self._frozen_view: View | None = None
        self._frozen_at: float | None = None
        self._notice: tuple[str, Kind, float] | None = None
        self._updated_at = float("-inf")
        self._update_timer: Timer | None = None
        self._offered: tuple[Any, ...] = ()
        self._interrupted_at = float("-inf")

    # Start and end

    def get_default_screen(self) -> Screen[None]:
        return RunsScreen()

    def on_mount(self) -> None:
        self._undo_signals = leave_on_signals(lambda code: self.exit(return_code=code))
        self.set_interval(1.0, self._tick)
        self._keep_link()

    def on_unmount(self) -> None:
        self._undo_signals()

    def _fatal_error(self) -> None:
        """Keep the traceback of our own mistake in a file; the user gets a sentence."""
        path = self.workspace.state / "screen.log"
        fault = self._exception.error if isinstance(self._exception, WorkerFailed) else self._exception
        story = "".join(traceback.format_exception(fault))
        try:
            with path.open("a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%F %T')}\n{story}\n")
            where = f"What happened is written in {path}."
        except OSError:
            where = story
        self.panic(Text(f"Vocable's screen ended because of a fault in it. {where}"))

    def parting_words(self) -> str:
        """What to say once the screen is gone."""
        if self.link_state.word != "connected":
            return f"The service was not connected. Its log: {self.workspace.daemon_log}"
        going = self.view.count("running") + self.view.count("queued")
        runs = {0: "No run is going on", 1: "1 run goes on"}.get(going, f"{going} runs go on")
        return f"{runs} in the daemon. Its log: {self.workspace.daemon_log}"

    # What is shown

    @property
    def shown_view(self) -> View:
        """The view that screens show: the newest, or the one that was frozen."""
        return self._frozen_view or self.view

    @property
    def is_frozen(self) -> bool:
        return self._frozen_view is not None

    @property
    def is_stale(self) -> bool:
        """Whether the line is down, so that what is shown may be old."""
        return self.link_state.word != "connected"

    @property
    def situation(self) -> Situation:
        run = self.shown_view.run(self.chosen or "")
        return Situation(self.link_state.word, run, run is not None and run.id in self.sending)

    def link_reason(self) -> str:
        """Why there is no line, and what to do; escaped."""
        return escape(self.link_state.reason)

    def fill_status(self, status: StatusLine) -> None:
        worker = self.view.worker
        status.show(
            workspace=escape(str(self.workspace.root)),
            link=describe_link(self.link_state, self.clock()),
            word=self.link_state.word,
            device=f"worker {worker.state}" + (f" on {escape(worker.device)}" if worker.device else ""),
            as_of=self.view.as_of,
            is_stale=self.is_stale,
            frozen_at=self._frozen_at,
        )

    def current_notice(self) -> tuple[str, Kind, float | None]:
        """Text, kind and time of the newest notice; without one, whatever stands in the way."""
        if self._notice is not None:
            return self._notice
        if self.is_stale and self.link_state.reason:
            return self.link_reason(), "warning", None
        if self.view.problem:
            return escape(self.view.problem), "warning", None
        if self.view.worker.state == "failed":
            return f"The worker failed: {escape(self.view.worker.note)}", "error", None
        return "", "note", None

    def say(self, text: str, kind: Kind = "note") -> None:
        """Tell the user something on the notice line; `text` is escaped already."""
        self._notice = (text, kind, self.clock())
        self._refresh_lines()

    def toggle_freeze(self) -> None:
        if self.is_frozen:
            self._frozen_view, self._frozen_at = None, None
        else:
            self._frozen_view, self._frozen_at = self.view, self.clock()
        self.update_screen(now=True)

    def update_bindings(self) -> None:
        """Draw the keys anew when other commands are possible than before."""
        situation = self.situation
        offered = tuple(is_offered(command, situation) for command in COMMANDS)
        if offered != self._offered:
            self._offered = offered
            self.refresh_bindings()

    def update_screen(self, *, now: bool = False) -> None:
        """Let the screen show the newest view: at once when the user did something, else at most twice a second."""
        wait_s = 0.0 if now else self._updated_at + UPDATE_INTERVAL_S - time.monotonic()
        if wait_s <= 0:
            self._send_update()
        elif self._update_timer is None:
            self._update_timer = self.set_timer(wait_s, self._send_update)

    def _send_update(self) -> None:
        if self._update_timer is not None:
            self._update_timer.stop()
            self._update_timer = None
        if not self.is_attached or not self.screen_stack:
            return
        self._updated_at = time.monotonic()
        if self._notice is not None and self._notice[1] == "note" and self.clock() - self._notice[2] > NOTE_LASTS_S:
            self._notice = None
        self.update_bindings()
        self.screen.post_message(ViewChanged())

    def _refresh_lines(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, RunsScreen) and screen.is_current:
                screen.refresh_lines()

    def _tick(self) -> None:
        """Count seconds on the screen while there is something to wait for; an idle screen sends nothing."""
        self._follow_size()
        if self.is_stale:
            self._refresh_lines()

    def _follow_size(self) -> None:
        """Notice a window of another size although no signal told of it: terminals and lines in between lose some."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            size = Size(*os.get_terminal_size(sys.__stdin__.fileno()))  # type: ignore[union-attr]
            if not self.is_headless and size.area and size != self.screen.size:
                self.post_message(events.Resize(size, size))

    # The line to the service

    @work(group="link")
    async def _keep_link(self) -> None:
        # The client takes longer to import than everything that the first screen needs.
        await asyncio.to_thread(importlib.import_module, "daemon.client")
        await self.link.run()

    def _make_client(self) -> Client:
        from daemon.client import Client, socket_for

        return Client(socket_for(self.workspace))

    @on(LinkChanged)
    def _take_link(self, message: LinkChanged) -> None:
        before, self.link_state = self.link_state, message.state
        if message.state.word != before.word:
            self._notice = None
            if message.state.word == "connected" and before.word == "lost":
                self.say("reconnected")
        if (message.state.word, message.state.reason) != (before.word, before.reason):
            self.update_screen(now=True)
        else:
            self._refresh_lines()

    @on(SnapshotTaken)
    def _take_snapshot(self, message: SnapshotTaken) -> None:
        self.view = view_snapshot(message.state, self.clock())
        self.update_screen()

    @on(LineReceived)
    def _take_line(self, message: LineReceived) -> None:
        before = self.view
        try:
            self.view = apply_line(self.view, message.line, self.clock())
        except Outdated:
            self._renew_view()
            return
        shown = (self.view.runs, self.view.worker, self.view.problem)
        if shown != (before.runs, before.worker, before.problem) and not self.is_frozen:
            self.update_screen()

    @work(exclusive=True, group="renew")
    async def _renew_view(self) -> None:
        """Take a snapshot because of a line that made no sense."""
        client = self.link.client
        if client is not None:
            try:
                self.post_message(SnapshotTaken(await client.state()))
            except VocableError as error:
                self.say(f"{escape(error.title)} {escape(error.hint)}".strip(), "error")

    @work(group="commands")
    async def send_command(self, run_id: str, name: str, command: RunCommand) -> None:
        """Send a command; until the service answers, the run shows that it is on its way and nothing else."""
        client = self.link.client
        if client is None or run_id in self.sending:
            return
        self.sending[run_id] = command
        self.update_screen(now=True)
        try:
            answer = await client.command(run_id, command)
        except VocableError as error:
            if error.code.startswith("link."):
                self.say(f"The line broke before {escape(name)} confirmed '{command}'; its state will tell.", "warning")
            else:
                self.say(escape(f"{error.title} {error.hint}".strip()), "error")
        else:
            self.add_run(answer)
        finally:
            del self.sending[run_id]
            self.update_screen(now=True)

    def add_run(self, run: RunView) -> None:
        """Take what the service answered into the view, without waiting for its event."""
        self.view = put_run(self.view, run, self.clock())
        self.update_screen(now=True)

    # Commands that hold everywhere

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        command = find_command(action)
        return True if command is None or command.scope != "program" else is_offered(command, self.situation)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        scope = self._scope(screen)
        for command in COMMANDS:
            if command.scope in (scope, "program") and not command.is_documentation:
                if command.id == "command_palette" or is_offered(command, self.situation) is False:
                    continue
                title = command.id.replace("_", " ").capitalize()
                yield SystemCommand(title, command.help, partial(self._perform, command, screen))

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            palette = CommandPalette(id="--command-palette")
            self.push_screen(palette)
            # A blinking cursor alone sends two kilobytes a second over a slow line.
            self.call_after_refresh(lambda: setattr(palette.query_one(Input), "cursor_blink", False))

    def action_show_help(self) -> None:
        scope = self._scope(self.screen)
        scopes: tuple[Scope, ...] = ("runs", "plot", "program") if scope == "runs" else (scope, "program")
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(scopes, self.situation))

    def action_retry_link(self) -> None:
        self.link.retry_now()

    @work(exclusive=True, group="start")
    async def action_start_daemon(self) -> None:
        from daemon.client import ensure_daemon

        self.say("starting the daemon")
        try:
            client = await ensure_daemon(self.workspace)
        except VocableError as error:
            self.say(escape(f"{error.title} {error.hint}".strip()), "error")
            return
        await client.close()
        self.link.retry_now()

    def action_redraw(self) -> None:
        if self._driver is not None:
            self._driver.write("\x1b[2J")
        self.refresh(layout=True)
        self.screen.refresh(layout=True)

    @work(exclusive=True, group="question")
    async def action_leave_program(self) -> None:
        if getattr(self.screen, "is_edited", False):
            question = ConfirmScreen("Leave Vocable?", "What you wrote in this form is lost. Runs go on in the daemon.")
            if not await self.push_screen_wait(question):
                return
        self.exit()

    def action_help_quit(self) -> None:
        """Leave at the second ctrl+c within a few seconds."""
        if time.monotonic() - self._interrupted_at < LEAVE_WITHIN_S:
            self.exit()
        self._interrupted_at = time.monotonic()
        self.say("Press ctrl+c again to leave. Runs go on in the daemon.")

    def _perform(self, command: Command, screen: Screen[Any]) -> None:
        reason = command.refuse(self.situation)
        if reason:
            self.say(reason, "warning")
            return
        target = screen if command.scope != "program" else self
        self.call_later(self.run_action, command.id, target)

    @staticmethod
    def _scope(screen: Screen[Any]) -> Scope:
        return getattr(screen, "SCOPE", "runs")
