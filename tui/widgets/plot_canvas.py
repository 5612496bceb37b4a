"""The plotting library's widget with our keys and curves. Imports numpy; loaded by `loss_plot` when a plot opens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.reactive import reactive
from textual.strip import Strip
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, PlotWidget
from textual_plot.plot_widget import Legend

from tui.commands import make_bindings
from tui.series import Curve


class StyledCanvas(Canvas):
    """The library's canvas, whose pieces without a style would end a program that runs without colours."""

    def render_line(self, y: int) -> Strip:
        line = super().render_line(y)
        segments = [segment if segment.style else Segment(segment.text, Style.null()) for segment in line]
        return Strip(segments, line.cell_length)


class PlotCanvas(PlotWidget, inherit_bindings=False):
    """Draws curves over a fixed range of steps until the user zooms or pans; `follow` goes back to that."""

    BINDINGS: ClassVar[list[BindingType]] = make_bindings("plot")
    margin_top = reactive(0)
    margin_bottom = reactive(1)
    margin_left = reactive(8)

    def __init__(self) -> None:
        super().__init__(id="canvas")
        self._last_step = 1
        self._is_moved = False

    def compose(self) -> ComposeResult:
        with Grid():
            for part in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield StyledCanvas(1, 1, id=part)
        yield Legend(id="legend")

    def draw(
        self, curves: Sequence[Curve], *, last_step: int, raw_style: str, mean_style: str, keep_view: bool
    ) -> None:
        """Draw raw values as dots and means as a line. `keep_view`: the same run, so stay where the user moved to."""
        self._last_step = last_step
        self.clear()
        for curve in curves:
            self.scatter(curve.steps, curve.raw, marker_style=raw_style, hires_mode=HiResMode.BRAILLE)
        for curve in curves:
            self.plot(curve.steps, curve.mean, line_style=mean_style, hires_mode=HiResMode.BRAILLE)
        if not (keep_view and self._is_moved):
            self.action_follow()

    def action_follow(self) -> None:
        """Show all steps again."""
        self._is_moved = False
        self.set_xlimits(0, self._last_step)
        self.set_ylimits(None, None)

    def _update_margin_sizes(self) -> None:
        # The program may be left while the plot is only half made; then there is no grid yet.
        if self.query("Grid"):
            super()._update_margin_sizes()

    def _update_legend(self) -> None:
        """The figures above the plot say what dots and line are; a legend would cover them."""

    @on(PlotWidget.ScaleChanged)
    def _note_move(self, event: PlotWidget.ScaleChanged) -> None:
        event.stop()
        self._is_moved = True
