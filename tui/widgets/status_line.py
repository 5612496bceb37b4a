"""The top line: program, workspace or age of what is shown, and the state of the line to the service in words."""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static

from tui.formats import format_time, shorten_path
from tui.glyphs import Glyphs

_STYLES = {"connected": "$text-success", "connecting": "dim"}


class StatusLine(Static):
    """One line across the screen."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(markup=False)
        self._glyphs = glyphs

    def show(
        self,
        *,
        workspace: str,
        link: str,
        word: str,
        device: str,
        as_of: float | None,
        is_stale: bool,
        frozen_at: float | None,
    ) -> None:
        """Args: `link` and `word` describe the line long and short; times are seconds since 1970."""
        dot = f" {self._glyphs.dot} "
        right = Content.styled(link, _STYLES.get(word, "$text-warning bold"))
        if frozen_at is not None:
            right = Content.assemble((f"FROZEN at {format_time(frozen_at)}", "$text-warning bold"), dot, right)
        elif is_stale and as_of is not None:
            right = Content.assemble((f"as of {format_time(as_of)}", "bold"), dot, right)
        elif device and self.size.width >= 100:
            right = Content.assemble((device, "dim"), dot, right)
        left = Content.styled(" Vocable", "bold $text-primary")
        room = self.size.width - left.cell_length - right.cell_length - cell_len(dot) - 2
        if room >= 12:
            left = Content.assemble(left, dot, (shorten_path(workspace, room, self._glyphs), "dim"))
        gap = max(1, self.size.width - left.cell_length - right.cell_length - 1)
        self.update(Content.assemble(left, " " * gap, right))
