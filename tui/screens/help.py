"""All keys that hold on the screen below, with a sentence each, and why some do nothing at the moment."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.commands import COMMANDS, Command, Scope, Situation, show_key

_TITLES: dict[Scope, str] = {
    "runs": "Runs",
    "plot": "Loss plot, while it has the focus (tab)",
    "form": "New run",
    "program": "Everywhere",
}
_NOTES = (
    "The mouse works too, but nothing needs it. Holding shift while dragging selects text in most terminals; "
    "VOCABLE_MOUSE=off leaves the mouse to the terminal. VOCABLE_PICTURES (auto, off, ascii, half, sixel, kitty) and "
    "VOCABLE_GLYPHS (unicode, ascii) choose how things are drawn; NO_COLOR is heeded."
)


class HelpScreen(ModalScreen[None]):
    """Made from the table of commands."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "dismiss", "Close"),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
    ]

    def __init__(self, scopes: tuple[Scope, ...], situation: Situation) -> None:
        super().__init__()
        self._scopes = scopes
        self._situation = situation

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="box"):
            for scope in self._scopes:
                yield Static(_TITLES[scope], classes="scope", markup=False)
                for command in COMMANDS:
                    if command.scope == scope and command.keys:
                        with Horizontal(classes="command"):
                            keys = " ".join(show_key(key) for key in command.keys)
                            yield Static(keys, classes="keys", markup=False)
                            yield Static(self._explain(command), markup=False)
            yield Static(_NOTES, id="notes", markup=False)

    def on_mount(self) -> None:
        box = self.query_one("#box")
        box.border_title = "Keys"
        box.border_subtitle = "esc closes"

    def action_scroll(self, direction: str) -> None:
        box = self.query_one("#box")
        box.scroll_relative(y=1 if direction == "down" else -1, animate=False)

    def _explain(self, command: Command) -> Content:
        reason = command.refuse(self._situation)
        return Content.assemble(command.help, (f" Not now: {reason}", "dim") if reason else "")
