"""The chosen run's loss over its steps, with the figures above it, so that the plot itself may be missing.

The plotting library and numpy are imported in a thread when the first curve is to be drawn. With plain characters only,
one line of trend stands in for the plot.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Static

from daemon.protocol.runs import LossPoint, RunView
from daemon.protocol.states import ENDED
from tui.formats import format_loss
from tui.glyphs import Glyphs
from tui.series import Series, draw_trend, make_series

if TYPE_CHECKING:
    from tui.widgets.plot_canvas import PlotCanvas

MOST_POINTS = 400
"""What a screen ever asks of the service: two buckets for each cell of a wide plot."""


class LossPlot(Vertical):
    """Figures and plot of one run."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plot--raw", "plot--mean"}

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="loss")
        self._glyphs = glyphs
        self._run: RunView | None = None
        self._points: list[LossPoint] = []
        self._canvas: PlotCanvas | None = None
        self._drawn: tuple[Any, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(id="loss-figures", markup=False)
        yield Static(id="loss-trend", markup=False)

    def show(self, run: RunView, points: list[LossPoint]) -> None:
        """Show a run with its buckets; drawn anew only when the curve itself changed."""
        self._run, self._points = run, points
        series = make_series(points, self._columns)
        self._show_figures(run, series)
        if self._glyphs.is_ascii:
            means = [value for curve in series.curves for value in curve.mean]
            self.query_one("#loss-trend", Static).update(Content(draw_trend(means, max(1, self.size.width - 2))))
        elif series.curves and self._canvas is None:
            self._open_canvas()
        else:
            self._draw(series)

    def on_resize(self, _: events.Resize) -> None:
        if self._run is not None:
            self.show(self._run, self._points)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self._run is not None:
            self._drawn = ()
            self.show(self._run, self._points)

    @property
    def _columns(self) -> int:
        return max(10, self.size.width - 10)

    def _show_figures(self, run: RunView, series: Series) -> None:
        parts = [("loss ", "$text-muted"), (format_loss(run.loss), "")]
        if run.mean_loss is not None:
            parts += [("  mean ", "$text-muted"), (format_loss(run.mean_loss), "bold")]
        if series.lowest is not None:
            parts += [("  lowest ", "$text-muted"), (format_loss(series.lowest), "")]
        if series.missing:
            parts += [(f"  NaN after step {series.missing[-1]}", "$text-warning")]
        try:
            self.query_one("#loss-figures", Static).update(Content.assemble(*parts))
        except NoMatches:
            return

    @work(exclusive=True, group="plot-import")
    async def _open_canvas(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, "tui.widgets.plot_canvas")
        if self._canvas is None and self.is_attached:
            canvas: PlotCanvas = module.PlotCanvas()
            await self.mount(canvas)
            self._canvas = canvas
            if self._run is not None:
                self.show(self._run, self._points)

    def _draw(self, series: Series) -> None:
        if self._canvas is None or self._run is None:
            return
        last = self._run.steps if self._run.state not in ENDED else max(series.last_step, 1)
        wanted = (self._run.id, series.curves, last)
        if wanted == self._drawn:
            return
        is_other_run = self._drawn[:1] != (self._run.id,)
        self._drawn = wanted
        self._canvas.draw(
            series.curves,
            last_step=last,
            raw_style=_foreground(self.get_component_rich_style("plot--raw")),
            mean_style=_foreground(self.get_component_rich_style("plot--mean")),
            keep_view=not is_other_run,
        )


def _foreground(style: Any) -> str:
    """The style without its background, as text for the plotting library."""
    words = [word for word, is_set in (("bold", style.bold), ("dim", style.dim)) if is_set]
    if style.color is not None and not style.color.is_default:
        words.append(style.color.name)
    return " ".join(words) or "default"
