from __future__ import annotations

import math

import pytest

from daemon.protocol.runs import LossPoint
from tui.series import Curve, draw_chart, exponential_means, make_series, merge_points


def points(*values: tuple[int, float]) -> list[LossPoint]:
    return [LossPoint(step=step, mean=mean, low=mean - 0.1, high=mean + 0.1) for step, mean in values]


def test_the_mean_of_single_steps_is_training_s_bias_corrected_mean() -> None:
    values = [0.5, 0.1, 0.3]
    expected, total = [], 0.0
    for number, value in enumerate(values, 1):
        total = 0.99 * total + 0.01 * value
        expected.append(total / (1 - 0.99**number))
    means = exponential_means(points(*enumerate(values, 1)))
    assert means == pytest.approx(expected)


def test_a_bucket_counts_for_as_many_steps_as_it_stands_for() -> None:
    single = exponential_means(points(*((step, 0.2 if step <= 100 else 0.8) for step in range(1, 201))))
    bucketed = exponential_means(points((100, 0.2), (200, 0.8)))
    assert bucketed[-1] == pytest.approx(single[-1])


def test_a_plot_gets_at_most_two_buckets_a_column() -> None:
    series = make_series(points(*((step, 0.1) for step in range(1, 1001))), columns=50)
    assert sum(len(curve.steps) for curve in series.curves) <= 100
    assert series.curves[-1].steps[-1] == series.last_step == 1000


def test_merging_keeps_means_lows_and_highs() -> None:
    merged = merge_points(points((10, 0.2), (20, 0.4), (30, 0.6), (40, 0.8)), 2)
    assert [point.step for point in merged] == [20, 40]
    assert [point.mean for point in merged] == pytest.approx([0.3, 0.7])
    assert merged[0].low == pytest.approx(0.1)
    assert merged[1].high == pytest.approx(0.9)


def test_steps_without_a_finite_loss_split_the_curve() -> None:
    missing = make_series(points((1, 0.1), (2, 0.1), (4, 0.3), (5, 0.3)), columns=50)
    assert [curve.steps for curve in missing.curves] == [(1, 2), (4, 5)]
    assert missing.missing == (2,)
    not_a_number = make_series(points((1, 0.1), (2, 0.1), (3, math.nan), (4, 0.3)), columns=50)
    assert [curve.steps for curve in not_a_number.curves] == [(1, 2), (4,)]


def test_a_shorter_last_bucket_is_no_gap() -> None:
    series = make_series(points((10, 0.1), (20, 0.1), (30, 0.1), (33, 0.1)), columns=50)
    assert len(series.curves) == 1
    assert series.missing == ()


def test_no_points_make_no_curve() -> None:
    assert make_series([], columns=50).curves == ()
    assert draw_chart([], 100, 40, 10) == ""


def test_the_chart_of_plain_characters_fits_and_says_its_range() -> None:
    curve = Curve((50, 100), (0.5, 0.1), (0.5, 0.3))
    chart = draw_chart([curve], 100, 40, 8)
    lines = chart.splitlines()
    assert len(lines) == 8
    assert max(map(len, lines)) == 40
    assert lines[0].startswith("    0.5|")
    assert "0.1|" in lines[5]
    assert "*" in lines[0]
    assert "." in lines[5]
    assert chart.isascii()
