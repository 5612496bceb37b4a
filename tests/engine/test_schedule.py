from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import VocableError
from engine.schedule import parse_schedule


@pytest.mark.parametrize(
    ("text", "steps", "segments"),
    [
        ("0.005", 500, [(0.005, 500)]),
        ("0.005:100, 1e-3:1000, 1e-5", 2000, [(0.005, 100), (0.001, 1000), (1e-5, 2000)]),
        ("0.005:100, 1e-3:1000, 1e-5", 500, [(0.005, 100), (0.001, 500)]),
        (" 0.1 : 10 ,, 0.2:-1 ", 20, [(0.1, 10), (0.2, 20)]),
        ("0.1:10", 20, [(0.1, 10)]),
    ],
)
def test_schedules_read_as_the_web_ui_reads_them(text: str, steps: int, segments: list[tuple[float, int]]) -> None:
    assert [(part.rate, part.until) for part in parse_schedule(text, steps).segments] == segments


def test_a_rate_covers_the_updates_before_its_step() -> None:
    schedule = parse_schedule("0.5:2, 0.25", 4)
    assert [schedule.rate_at(step) for step in range(4)] == [0.5, 0.5, 0.25, 0.25]


def test_training_ends_where_the_last_rate_does() -> None:
    assert parse_schedule("0.1:10", 20).last_step == 10


def test_reach_is_the_sum_of_the_rates_still_to_come() -> None:
    assert parse_schedule("0.5:2, 0.25", 4).reach() == pytest.approx(1.5)
    assert parse_schedule("0.5:2, 0.25", 4).reach(start=3) == pytest.approx(0.25)


@pytest.mark.parametrize("text", ["", ",", "fast", "0.1:ten", "0", "-0.1", "nan", "inf", "0.1:0", "0.1:-2", "1:9,2:5"])
def test_what_is_no_schedule_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(VocableError) as caught:
        parse_schedule(text, 100)
    assert caught.value.code == "schedule.invalid"
    assert "0.005:100" in caught.value.hint


@given(st.text(max_size=40))
def test_no_text_makes_the_reader_stumble(text: str) -> None:
    try:
        schedule = parse_schedule(text, 100)
    except VocableError:
        return
    assert 0 < schedule.last_step <= 100
    assert all(schedule.rate_at(step) > 0 for step in range(schedule.last_step))
