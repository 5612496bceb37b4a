from __future__ import annotations

import math

import pytest
import torch

from engine.errors import VocableError
from engine.training.report import Pace, Reading, Readings, Tally


def reading(step: int, loss: float | None = 1.0, *, moved: bool = True) -> Reading:
    return Reading(step, 0.1, loss, moved)


def tally_of(*readings: Reading) -> Tally:
    tally = Tally()
    for item in readings:
        tally = tally.add(item)
    return tally


def test_the_mean_of_equal_losses_is_that_loss_from_the_start() -> None:
    assert tally_of(reading(1, 0.3)).mean_loss == pytest.approx(0.3)
    assert tally_of(*(reading(step, 0.3) for step in range(1, 50))).mean_loss == pytest.approx(0.3)


def test_the_mean_follows_new_losses_slowly() -> None:
    tally = tally_of(*(reading(step, 1.0) for step in range(500)), *(reading(step, 0.0) for step in range(100)))
    assert tally.mean_loss == pytest.approx(0.99**100, rel=0.02)


def test_losses_left_out_do_not_count_in_the_mean() -> None:
    assert tally_of(reading(1, 0.5), reading(2, None)).mean_loss == pytest.approx(0.5)
    assert math.isnan(tally_of(reading(1, None)).mean_loss)


def test_ten_losses_left_out_in_a_row_mean_that_the_run_diverges() -> None:
    nine = [reading(step, None) for step in range(9)]
    assert not tally_of(*nine, reading(9), reading(10, None)).diverging
    assert tally_of(reading(0), *nine, reading(10, None)).diverging


def test_first_updates_without_any_gradient_are_an_error_later_ones_are_not() -> None:
    with pytest.raises(VocableError) as caught:
        tally_of(*(reading(step, moved=False) for step in range(3)))
    assert caught.value.code == "training.no_gradient"
    tally_of(reading(1), *(reading(step, moved=False) for step in range(2, 9)))


def test_readings_come_back_in_order_with_what_was_left_out() -> None:
    readings = Readings(torch.device("cpu"))
    for step, values in enumerate([(0.5, 1.0), (math.nan, math.nan), (0.25, 0.0)], 1):
        readings.push(step, 0.1, torch.tensor(values))
    assert readings.collect(wait=False) == [
        Reading(1, 0.1, 0.5, True),
        Reading(2, 0.1, None, True),
        Reading(3, 0.1, 0.25, False),
    ]
    assert readings.collect(wait=True) == []


def test_the_pace_is_that_of_the_last_moments() -> None:
    pace = Pace(window_s=10)
    pace.restart(0, 0)
    assert pace.measure(5, 50) == pytest.approx(10)
    assert pace.measure(10, 60) == pytest.approx(6)
    assert pace.measure(16, 72) == pytest.approx(2)
    pace.restart(100, 72)
    assert pace.measure(101, 75) == pytest.approx(3)


def test_a_clock_that_stands_still_or_runs_back_gives_no_pace() -> None:
    pace = Pace()
    pace.restart(10, 0)
    assert pace.measure(10, 5) == 0
    assert pace.measure(9, 6) == 0
