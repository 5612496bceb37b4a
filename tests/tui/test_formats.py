from __future__ import annotations

import time

import pytest
from rich.cells import cell_len

from tui.formats import format_bar, format_loss, format_moment, format_rate, format_share, shorten, shorten_path
from tui.glyphs import ASCII, UNICODE
from tui.widgets.runs_table import plan_columns


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (0.0, ""), (3.4217, "3.42 steps/s"), (250.0, "250 steps/s"), (0.25, "4 s/step"), (float("nan"), "")],
)
def test_rates_are_steps_a_second_or_seconds_a_step(value: float | None, shown: str) -> None:
    assert format_rate(value) == shown


def test_only_the_end_is_100_per_cent() -> None:
    assert format_share(999, 1000) == "99 %"
    assert format_share(1000, 1000) == "100 %"
    assert format_share(0, 0) == "0 %"
    assert format_bar(999, 1000, 8, UNICODE) == "███████░"
    assert format_bar(1000, 1000, 8, ASCII) == "########"


def test_losses_have_four_digits_or_say_that_they_are_none() -> None:
    assert format_loss(0.123456) == "0.1235"
    assert format_loss(None) == "none"
    assert format_loss(float("nan")) == "nan"


@pytest.mark.parametrize("text", ["short", "a rather long name", "日本語の長い名前です", "e\u0301" * 20])
def test_shortened_text_never_takes_more_cells_than_it_may(text: str) -> None:
    for width in range(0, 12):
        assert cell_len(shorten(text, width, UNICODE)) <= width
        assert cell_len(shorten(text, width, ASCII)) <= width


def test_moments_of_other_days_have_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    noon = 1_800_014_400.0
    assert format_moment(noon - 60, noon) == "11:59:00"
    assert format_moment(noon - 86_400, noon) == "2027-01-14 12:00"
    monkeypatch.undo()
    time.tzset()


def test_a_path_keeps_its_end() -> None:
    assert shorten_path("/a/long/way/to/picture.png", 12, UNICODE) == "…picture.png"
    assert shorten_path("/short.png", 12, UNICODE) == "/short.png"


@pytest.mark.parametrize("width", range(40, 201))
def test_columns_always_fit_and_state_and_name_are_always_there(width: int) -> None:
    columns = plan_columns(width)
    assert sum(columns.values()) + 2 * len(columns) <= width
    assert list(columns)[:2] == ["state", "name"]


def test_eighty_columns_show_everything() -> None:
    assert list(plan_columns(79)) == ["state", "name", "step", "progress", "rate", "left"]
