"""The chosen run's loss over its steps, with the figures above it, so that the plot itself may be missing.

The plotting library and numpy are imported in a thread when the first curve is drawn. With plain characters only, a
chart of dots and stars stands in for the plot.
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
from tui.series import Series, draw_chart, make_series

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
        """Set once it can be drawn on."""
        self._is_opening = False
        self._drawn: tuple[Any, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(id="loss-figures", markup=False)
        if self._glyphs.is_ascii:
            yield Static(id="loss-chart", markup=False)

    def show(self, run: RunView, points: list[LossPoint]) -> None:
        """Show a run with its buckets; drawn anew only when the curve itself changed."""
        self._run, self._points = run, points
        series = make_series(points, self._columns)
        self._show_figures(run, series)
        if self._glyphs.is_ascii:
            width, height = self.size
            chart = draw_chart(series.curves, self._last_step(run, series), width - 1, height - 1)
            self.query_one("#loss-chart", Static).update(Content(chart))
        elif self._canvas is None:
            if series.curves and not self._is_opening:
                self._is_opening = True
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

    @staticmethod
    def _last_step(run: RunView, series: Series) -> int:
        """Right end of the plot: fixed while steps are still to come, so that nothing shifts."""
        return max(series.last_step, 1) if run.state in ENDED else run.steps

    def _show_figures(self, run: RunView, series: Series) -> None:
        parts = [("loss ", "dim"), (format_loss(run.loss), "")] if run.loss is not None else [("no losses yet", "dim")]
        if run.mean_loss is not None:
            parts += [("  mean ", "dim"), (format_loss(run.mean_loss), "bold")]
        means = [mean for mean in (series.lowest, run.mean_loss) if mean is not None]
        if means:
            parts += [("  lowest ", "dim"), (format_loss(min(means)), "")]
        if series.missing:
            parts += [(f"  NaN after step {series.missing[-1]}", "$text-warning")]
        try:
            self.query_one("#loss-figures", Static).update(Content.assemble(*parts))
        except NoMatches:
            return

    @work
    async def _open_canvas(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, "tui.widgets.plot_canvas")
        if not self.is_attached:
            return
        canvas: PlotCanvas = module.PlotCanvas()
        await self.mount(canvas)
        self._canvas = canvas
        if self._run is not None:
            self.show(self._run, self._points)

    def _draw(self, series: Series) -> None:
        if self._canvas is None or self._run is None:
            return
        self._canvas.display = bool(series.curves)
        last = self._last_step(self._run, series)
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
