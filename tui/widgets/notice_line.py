"""One line above the keys: the newest thing that happened, or else what stands in the way at the moment."""

from __future__ import annotations

from typing import Literal

from textual.content import Content
from textual.widgets import Static

from tui.formats import format_time

Kind = Literal["note", "warning", "error"]

_STYLES: dict[Kind, str] = {"note": "dim", "warning": "$text-warning", "error": "$text-error"}


class NoticeLine(Static):
    """One row, or two for long texts; the whole text is its tooltip."""

    def __init__(self) -> None:
        super().__init__(markup=False)

    def show(self, text: str, kind: Kind, at: float | None = None) -> None:
        """Args: `text` is escaped already; `at` stamps it with the time of day."""
        stamp = f"{format_time(at)} " if at is not None else ""
        word = "" if kind == "note" else f"{kind}: "
        self.update(Content.assemble((stamp, "dim"), (word + text, _STYLES[kind])))
        self.tooltip = Content(text) if text else None
