"""From the service's loss buckets to what a plot draws: merged to the plot's width, smoothed, split where values lack.

Pure functions on plain numbers, used by `widgets.loss_plot`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.protocol.runs import LossPoint

MEAN_DECAY = 0.99
"""Of the exponential mean, per step; the same as in training's reports."""


_LABEL_WIDTH = 7


@dataclass(frozen=True)
class Curve:
    """A stretch of steps without a gap, ready to be drawn as one line."""

    steps: tuple[int, ...]
    raw: tuple[float, ...]
    """Mean loss of each bucket."""
    mean: tuple[float, ...]
    """Exponential mean up to each bucket, bias-corrected; it runs on over gaps."""


@dataclass(frozen=True)
class Series:
    """All curves of a run and the figures that stand beside them."""

    curves: tuple[Curve, ...] = ()
    last_step: int = 0
    lowest: float | None = None
    """Lowest exponential mean."""
    missing: tuple[int, ...] = ()
    """Last step before each gap; a step whose loss was no finite number is left out of the service's buckets."""


def make_series(points: Sequence[LossPoint], columns: int) -> Series:
    """Prepare points for a plot of `columns` cells: at most two buckets a cell, one curve between any two gaps."""
    merged = merge_points([point for point in points if math.isfinite(point.mean)], 2 * max(columns, 1))
    means = exponential_means(merged)
    curves = tuple(
        Curve(
            tuple(point.step for point in merged[begin:end]),
            tuple(point.mean for point in merged[begin:end]),
            tuple(means[begin:end]),
        )
        for begin, end in _stretches([point.step for point in merged])
    )
    last = max((point.step for point in points), default=0)
    return Series(curves, last, min(means, default=None), tuple(curve.steps[-1] for curve in curves[:-1]))


def merge_points(points: Sequence[LossPoint], count: int) -> list[LossPoint]:
    """At most `count` points: neighbours are averaged by the steps they stand for, lows and highs kept."""
    if len(points) <= count:
        return list(points)
    size = math.ceil(len(points) / count)
    weights = _widths([point.step for point in points])
    merged = []
    for start in range(0, len(points), size):
        group, weight = points[start : start + size], weights[start : start + size]
        mean = sum(point.mean * share for point, share in zip(group, weight, strict=True)) / sum(weight)
        low, high = min(point.low for point in group), max(point.high for point in group)
        merged.append(LossPoint(step=group[-1].step, mean=mean, low=low, high=high))
    return merged


def exponential_means(points: Sequence[LossPoint]) -> list[float]:
    """Exponential mean after each point, each counting for as many steps as it stands for."""
    means, total, weight = [], 0.0, 0.0
    for point, width in zip(points, _widths([point.step for point in points]), strict=True):
        kept = MEAN_DECAY**width
        total = kept * total + (1 - kept) * point.mean
        weight = kept * weight + (1 - kept)
        means.append(total / weight)
    return means


def draw_chart(curves: Sequence[Curve], last_step: int, width: int, height: int) -> str:
    """A plot in plain characters, `width` by `height` cells: dots for raw values, stars for the mean."""
    values = [value for curve in curves for value in (*curve.raw, *curve.mean)]
    columns, rows = width - _LABEL_WIDTH - 1, height - 2
    if not values or columns < 8 or rows < 2:
        return ""
    low, high = min(values), max(values)
    grid = [[" "] * columns for _ in range(rows)]

    def mark(step: int, value: float, character: str) -> None:
        column = min(columns - 1, step * columns // max(last_step, 1))
        row = round((high - value) / ((high - low) or 1.0) * (rows - 1))
        grid[row][column] = character

    for name, character in (("raw", "."), ("mean", "*")):
        for curve in curves:
            for step, value in zip(curve.steps, getattr(curve, name), strict=True):
                mark(step, value, character)
    labels = {0: f"{high:.4g}", rows - 1: f"{low:.4g}"}
    lines = [f"{labels.get(number, ''):>{_LABEL_WIDTH}}|{''.join(row)}" for number, row in enumerate(grid)]
    lines.append(" " * _LABEL_WIDTH + "+" + "-" * columns)
    lines.append(" " * _LABEL_WIDTH + "0" + str(last_step).rjust(columns))
    return "\n".join(lines)


def _widths(steps: Sequence[int]) -> list[int]:
    """Steps each point stands for: the distance to the one before, but never more than is usual (a gap is no step)."""
    distances = [max(1, step - before) for before, step in zip([0, *steps], steps, strict=False)]
    usual = sorted(distances)[len(distances) // 2] if distances else 1
    return [min(distance, usual) for distance in distances]


def _stretches(steps: Sequence[int]) -> list[tuple[int, int]]:
    """Index ranges in which no bucket is missing between two neighbours."""
    if not steps:
        return []
    usual = max(_widths(steps))
    breaks = [at for at in range(1, len(steps)) if steps[at] - steps[at - 1] > 1.5 * usual]
    return list(zip([0, *breaks], [*breaks, len(steps)], strict=True))
