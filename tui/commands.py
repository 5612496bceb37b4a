"""Every key and verb of the screen, written down once: bindings, footer, help and palette are made from this table.

Each command also says, in a sentence, why it is not possible at the moment. Keys are such as every terminal can send;
what needs more is only an extra beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType

from daemon.protocol.runs import RunView
from daemon.protocol.states import POSSIBLE, RunCommand
from engine.text import escape
from tui.link import LinkWord

Scope = Literal["program", "runs", "plot", "form", "question"]
"""Where a key holds: everywhere, on the list of runs, while the plot has the focus, in a form, or in a question."""


@dataclass(frozen=True)
class Situation:
    """What decides whether a command is possible now."""

    link: LinkWord = "connected"
    run: RunView | None = None
    """The chosen run."""
    is_sending: bool = False
    """A command for the chosen run is on its way."""


def _always(_: Situation) -> str:
    return ""


@dataclass(frozen=True)
class Command:
    """One thing the user can do."""

    id: str
    """Also the name of its action: `action_ID` of the app, screen or widget of its scope."""
    keys: tuple[str, ...]
    """As Textual names them; the first one is shown. Empty: palette only."""
    label: str
    """One word."""
    help: str
    """One sentence."""
    scope: Scope
    in_footer: bool = False
    is_documentation: bool = False
    """The focused widget binds the keys itself; listed for help only."""
    refuse: Callable[[Situation], str] = _always
    """Why it is not possible now, empty when it is."""


_DOWN: dict[LinkWord, str] = {
    "connecting": "The service has not answered yet.",
    "lost": "The line to the service is down; what you see is old.",
    "absent": "The daemon is not running; S starts it.",
    "version": "The running service does not fit this program.",
}


def _refuse_offline(situation: Situation) -> str:
    return _DOWN.get(situation.link, "")


def _refuse_without_run(situation: Situation) -> str:
    return "" if situation.run else "No run is chosen."


def _refuse_run_command(command: RunCommand, participle: str) -> Callable[[Situation], str]:
    def refuse(situation: Situation) -> str:
        reason = _refuse_offline(situation) or _refuse_without_run(situation)
        if reason or situation.run is None:
            return reason
        name, state = escape(situation.run.name), situation.run.state
        if situation.is_sending or situation.run.asked:
            return f"{name} has not yet followed the last command."
        return "" if command in POSSIBLE[state] else f"{name} is {state} and cannot be {participle}."

    return refuse


def _refuse_online(situation: Situation) -> str:
    return "The service is connected." if situation.link == "connected" else ""


def _refuse_start(situation: Situation) -> str:
    running = situation.link in ("connected", "version")
    return "The daemon is running." if running else ""


COMMANDS: tuple[Command, ...] = (
    Command("new_run", ("n",), "New", "Fill in a form for a new run.", "runs", True, refuse=_refuse_offline),
    Command(
        "pause_run",
        ("p",),
        "Pause",
        "Pause the chosen run: a checkpoint is written and the next run may begin.",
        "runs",
        True,
        refuse=_refuse_run_command("pause", "paused"),
    ),
    Command(
        "resume_run",
        ("p",),
        "Resume",
        "Let the chosen run go on from its newest checkpoint, before all others that wait.",
        "runs",
        True,
        refuse=_refuse_run_command("resume", "resumed"),
    ),
    Command(
        "stop_run",
        ("s",),
        "Stop",
        "Stop the chosen run, after a question: its embedding is saved as it is then.",
        "runs",
        True,
        refuse=_refuse_run_command("stop", "stopped"),
    ),
    Command(
        "freeze", ("z",), "Freeze", "Freeze what is shown, or let it move again; runs are not touched.", "runs", True
    ),
    Command(
        "cycle_pictures",
        ("v",),
        "Image",
        "Show previews another way: half cells, what the terminal can do beyond, plain characters, or not at all.",
        "runs",
        True,
    ),
    Command(
        "copy_path",
        ("y",),
        "Copy",
        "Copy the path of the run's embedding, newest preview or folder to the clipboard of your terminal.",
        "runs",
        refuse=_refuse_without_run,
    ),
    Command(
        "move", ("j", "k", "down", "up"), "Move", "Choose the next or previous run.", "runs", is_documentation=True
    ),
    Command(
        "move_far", ("g", "G", "home", "end"), "Ends", "Choose the first or last run.", "runs", is_documentation=True
    ),
    Command(
        "move_page",
        ("pagedown", "pageup", "ctrl+d", "ctrl+u"),
        "Page",
        "Move by a page.",
        "runs",
        is_documentation=True,
    ),
    Command(
        "change_pane",
        ("tab", "shift+tab"),
        "Pane",
        "Go to the plot or to the list.",
        "runs",
        is_documentation=True,
    ),
    Command("zoom_in", ("+",), "Zoom", "Show a smaller part of the loss plot.", "plot", True),
    Command("zoom_out", ("-",), "Wider", "Show a larger part of the loss plot.", "plot", True),
    Command("pan_left", ("left", "h"), "Left", "Move the plot to earlier steps.", "plot"),
    Command("pan_right", ("right", "l"), "Right", "Move the plot to later steps.", "plot"),
    Command("pan_up", ("up",), "Up", "Move the plot to higher losses.", "plot"),
    Command("pan_down", ("down",), "Down", "Move the plot to lower losses.", "plot"),
    Command("follow", ("a",), "All", "Show the whole run again and follow it.", "plot", True),
    Command("submit", ("f2",), "Queue", "Check the form and queue the run.", "form", True, refuse=_refuse_offline),
    Command(
        "next_field",
        ("enter", "tab", "shift+tab"),
        "Field",
        "Go to the next or previous field.",
        "form",
        is_documentation=True,
    ),
    Command("complete", ("right",), "Complete", "Take over the grey completion.", "form", is_documentation=True),
    Command("leave", ("escape",), "Back", "Leave the form.", "form", True),
    Command("say_yes", ("y",), "Yes", "Do what the question asks.", "question", True),
    Command("say_no", ("n", "escape"), "No", "Leave everything as it is.", "question", True),
    Command("start_daemon", ("S",), "Start", "Start the daemon of this workspace.", "program", refuse=_refuse_start),
    Command("retry_link", ("r",), "Retry", "Try to reach the service now.", "program", refuse=_refuse_online),
    Command("command_palette", (":", "ctrl+p"), "Menu", "Find a command by its name.", "program", True),
    Command("show_help", ("?", "f1"), "Help", "Show all keys and what they do.", "program", True),
    Command("redraw", ("ctrl+l",), "Redraw", "Draw the whole screen again, after noise on the line.", "program"),
    Command("suspend_process", ("ctrl+z",), "Suspend", "Go back to the shell; fg returns.", "program"),
    Command("change_theme", (), "Theme", "Choose other colours.", "program"),
    Command("leave_program", ("q", "ctrl+q"), "Quit", "Leave this screen; runs go on in the daemon.", "program", True),
)

_BY_ID = {command.id: command for command in COMMANDS}


def find_command(command_id: str) -> Command | None:
    return _BY_ID.get(command_id)


def make_bindings(scope: Scope) -> list[BindingType]:
    """Textual's bindings of a scope, in the order of the table."""
    return [
        Binding(
            key,
            command.id,
            command.label,
            show=command.in_footer and key == command.keys[0],
            key_display=show_key(key),
            tooltip=command.help,
            id=f"{command.id}.{number}" if number else command.id,
            # Inputs take plain characters for themselves; function and control keys must work there too.
            priority=key == "ctrl+q",
        )
        for command in COMMANDS
        if command.scope == scope and not command.is_documentation
        for number, key in enumerate(command.keys)
    ]


def is_offered(command: Command, situation: Situation) -> bool | None:
    """What Textual's `check_action` wants: True possible, None shown in grey, False not shown.

    Of several commands on one key the possible one is shown; when none is, the first.
    """
    if not command.refuse(situation):
        return True
    rivals = [
        other
        for other in COMMANDS
        if other.scope == command.scope and not other.is_documentation and other.keys[:1] == command.keys[:1]
    ]
    is_shown = rivals[0] is command and all(rival.refuse(situation) for rival in rivals)
    return None if is_shown or not command.keys else False


def explain_key(key: str, scope: Scope, situation: Situation) -> str:
    """Why a key does nothing now, empty when it is no command's key or some command of it is possible."""
    bound = [
        command
        for command in COMMANDS
        if command.scope in (scope, "program") and not command.is_documentation and key in command.keys
    ]
    reasons = [command.refuse(situation) for command in bound]
    return reasons[0] if reasons and all(reasons) else ""


def show_key(key: str) -> str:
    """A key as people write it."""
    names = {"escape": "esc", "pagedown": "PgDn", "pageup": "PgUp", "down": "↓", "up": "↑", "left": "←", "right": "→"}
    return names.get(key, key.upper() if key[0] == "f" and key[1:].isdigit() else key)
