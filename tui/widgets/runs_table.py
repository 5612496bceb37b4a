"""The list of runs. Rows are changed in place by the run's id, so cursor and scroll stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from daemon.protocol.runs import RunView
from engine.text import escape
from tui.formats import format_bar, format_duration, format_share, shorten
from tui.glyphs import Glyphs

_COLUMNS = (
    ("state", "State", 12),
    ("name", "Name", 14),
    ("progress", "Progress", 8),
    ("step", "Step", 12),
    ("left", "Time left", 11),
    ("rate", "Steps/s", 7),
)
"""Key, header and width, the most important first; what does not fit is left out."""
_ORDER = ("state", "name", "step", "progress", "rate", "left")
_RIGHT = ("step", "rate")
_BAR_WIDTH = 8
_SHARE_WIDTH = 8
_LONGEST_NAME = 40
_NAME_BEFORE_BAR = 6
"""Cells that the name gets beyond its least width before there is a bar."""


class RunsTable(DataTable[Text]):
    """All runs, one a row, with as many columns as there is room for."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "runs--running",
        "runs--finished",
        "runs--failed",
        "runs--paused",
        "runs--queued",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("g,home", "scroll_top", show=False),
        Binding("G,end", "scroll_bottom", show=False),
        Binding("ctrl+d", "page_down", show=False),
        Binding("ctrl+u", "page_up", show=False),
    ]

    def __init__(self, glyphs: Glyphs, describe: Callable[[RunView], str]) -> None:
        """Args: `describe` gives glyph and word of a run's state."""
        super().__init__(cursor_type="row", zebra_stripes=False, cell_padding=1, id="runs")
        self._glyphs = glyphs
        self._describe = describe
        self._runs: tuple[RunView, ...] = ()
        self._widths: dict[str, int] = {}
        self._is_stale = False
        self._shown: dict[str, list[Text]] = {}

    @property
    def chosen(self) -> str | None:
        """Id of the run under the cursor."""
        if not self._runs or not self.is_valid_row_index(self.cursor_row):
            return None
        return self._runs[self.cursor_row].id

    def show(self, runs: tuple[RunView, ...], *, is_stale: bool) -> None:
        """Show these runs, in this order; the cursor stays on its run."""
        chosen = self.chosen
        same_rows = [run.id for run in runs] == [run.id for run in self._runs] and len(self._shown) == len(runs)
        self._runs, self._is_stale = runs, is_stale
        widths = plan_columns(self.size.width - 1)
        if widths != self._widths or not same_rows:
            self._widths = widths
            self._rebuild(chosen)
        else:
            self._change_cells()

    def choose(self, run_id: str) -> None:
        """Put the cursor on a run."""
        for row, run in enumerate(self._runs):
            if run.id == run_id:
                self.move_cursor(row=row, animate=False)

    def on_resize(self, _: events.Resize) -> None:
        self.show(self._runs, is_stale=self._is_stale)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._change_cells()

    def _rebuild(self, chosen: str | None) -> None:
        scroll = self.scroll_y
        with self.prevent(DataTable.RowHighlighted):
            self.clear(columns=True)
            headers = {key: header for key, header, _ in _COLUMNS}
            for key in self._widths:
                header = headers[key].rjust(self._widths[key]) if key in _RIGHT else headers[key]
                self.add_column(Text(header), width=self._widths[key], key=key)
            self._shown = {run.id: self._make_cells(run) for run in self._runs}
            for run_id, cells in self._shown.items():
                self.add_row(*cells, key=run_id)
            row = next((number for number, run in enumerate(self._runs) if run.id == chosen), 0)
            self.move_cursor(row=row, animate=False, scroll=False)
            self.scroll_to(y=scroll, animate=False)

    def _change_cells(self) -> None:
        for run in self._runs:
            cells = self._make_cells(run)
            for key, old, new in zip(self._widths, self._shown.get(run.id, []), cells, strict=False):
                if old != new or old.style != new.style:
                    self.update_cell(run.id, key, new)
            self._shown[run.id] = cells

    def _make_cells(self, run: RunView) -> list[Text]:
        left = format_duration(run.seconds_left) if run.state == "running" and run.seconds_left is not None else ""
        rate = f"{run.steps_per_second:.3g}" if run.state == "running" and run.steps_per_second else ""
        share = format_share(run.step, run.steps).rjust(5)
        if self._widths.get("progress", 0) > _SHARE_WIDTH:
            share = f"{format_bar(run.step, run.steps, _BAR_WIDTH, self._glyphs)} {share}"
        texts = {
            "state": self._describe(run),
            "name": shorten(escape(run.name), self._widths.get("name", 0), self._glyphs),
            "step": f"{run.step}/{run.steps}".rjust(self._widths.get("step", 0)),
            "progress": share,
            "rate": rate.rjust(self._widths.get("rate", 0)),
            "left": left,
        }
        return [Text(texts[key], style=self._style(key, run), no_wrap=True) for key in self._widths]

    def _style(self, key: str, run: RunView) -> Style:
        dim = Style(dim=True) if self._is_stale else Style()
        if key != "state":
            return dim
        word = "queued" if run.state == "stopped" else run.state
        return dim + Style(color=self.get_component_rich_style(f"runs--{word}").color)


def plan_columns(width: int) -> dict[str, int]:
    """Which columns to show, in order, and how wide; two cells of each are padding."""
    fitting: dict[str, int] = {}
    used = 0
    for key, _, wanted in _COLUMNS:
        if used + wanted + 2 > width and key not in ("state", "name"):
            break
        fitting[key] = wanted
        used += wanted + 2
    with_bar = _BAR_WIDTH + 1 + 5
    if "progress" in fitting and used + with_bar - _SHARE_WIDTH + _NAME_BEFORE_BAR <= width:
        fitting["progress"] = with_bar
        used += with_bar - _SHARE_WIDTH
    fitting["name"] = min(_LONGEST_NAME, max(8, fitting["name"] + width - used))
    return {key: fitting[key] for key in _ordered(fitting)}


def _ordered(keys: Iterable[str]) -> list[str]:
    return sorted(keys, key=_ORDER.index)
