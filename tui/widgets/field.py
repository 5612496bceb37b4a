"""One field of a form: label, input, and a line below that helps or says what is wrong."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, Label, Static


class Field(Vertical):
    """Text in, text out; what the text means is the form's business."""

    class Left(Message):
        """The focus went away, so that it is time to look at the value."""

        def __init__(self, field: Field) -> None:
            super().__init__()
            self.field = field

    def __init__(
        self, path: str, label: str, *, value: str, help: str, placeholder: str = "", suggester: Suggester | None = None
    ) -> None:
        """Args: `path` is the dotted path in the recipe, by which faults find their field."""
        super().__init__(id=f"field-{path.replace('.', '-')}")
        self.path = path
        self.was_left = False
        """Whether the user has been here; before that nobody is told what is wrong."""
        self._label = label
        self._help = help
        self._input = Input(value, placeholder=placeholder, suggester=suggester, compact=True, select_on_focus=False)
        self._input.cursor_blink = False

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(self._label, markup=False)
            yield self._input
        yield Static(Content(self._help), classes="hint", markup=False)

    @property
    def text(self) -> str:
        return self._input.value.strip()

    def replace_text(self, text: str) -> None:
        self._input.value = text

    def focus_input(self) -> None:
        self._input.focus()

    def show_help(self, text: str = "") -> None:
        """Show help, or `text` in its place; escaped already."""
        self._say(text or self._help)
        self.remove_class("-wrong")

    def show_fault(self, text: str) -> None:
        """Show what is wrong with the value; escaped already."""
        self._say(f"{self._label} {text}")
        self.add_class("-wrong")

    def on_descendant_blur(self, _: events.DescendantBlur) -> None:
        self.was_left = True
        self.post_message(self.Left(self))

    def _say(self, text: str) -> None:
        for hint in self.query(".hint").results(Static):  # none in a form that is being left
            hint.update(Content(text))
