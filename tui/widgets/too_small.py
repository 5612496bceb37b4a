"""What covers the screen when the terminal is smaller than any layout."""

from __future__ import annotations

from textual import events
from textual.widgets import Static

LEAST_WIDTH = 60
LEAST_HEIGHT = 16
HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (LEAST_WIDTH, "-narrow"), (100, "-wide")]
VERTICAL_BREAKPOINTS = [(0, "-flat"), (LEAST_HEIGHT, "-short"), (21, "-normal"), (28, "-tall")]
"""Classes of the screens by the terminal's columns and rows."""


class TooSmall(Static):
    """One line, shown by the style sheet on `-tiny` and `-flat` screens."""

    def __init__(self) -> None:
        super().__init__(markup=False)

    def on_resize(self, _: events.Resize) -> None:
        width, height = self.app.size
        self.update(f"needs {LEAST_WIDTH}x{LEAST_HEIGHT}, have {width}x{height}")
