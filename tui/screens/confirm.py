"""A question before something that is hard to take back. Nothing happens unless the user says yes."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui.commands import make_bindings


class ConfirmScreen(ModalScreen[bool]):
    """Names the thing and the consequence; the safe answer has the focus."""

    AUTO_FOCUS = "#no"
    BINDINGS: ClassVar[list[BindingType]] = [
        *make_bindings("question"),
        Binding("left,right,up,down", "change_answer", show=False),
    ]

    def __init__(self, question: str, consequence: str) -> None:
        """Args: both escaped already."""
        super().__init__()
        self._question = question
        self._consequence = consequence

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(self._question, id="question", markup=False)
            yield Static(self._consequence, id="consequence", markup=False)
            with Horizontal(id="answers"):
                yield Button("No (n)", id="no", compact=True)
                yield Button("Yes (y)", id="yes", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_say_yes(self) -> None:
        self.dismiss(True)

    def action_say_no(self) -> None:
        self.dismiss(False)

    def action_change_answer(self) -> None:
        self.focus_next()
