"""Where pictures go: never over an existing file, unless it was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import VocableError
from tui.cli.generate import choose_output, parse_size


def test_without_a_name_the_seed_names_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_output(None, 7, 1) == tmp_path / "vocable-7.png"


def test_an_existing_picture_is_never_in_the_way_by_accident(tmp_path: Path) -> None:
    (tmp_path / "vocable-7.png").touch()
    assert choose_output(tmp_path, 7, 1) == tmp_path / "vocable-7(2).png"
    assert choose_output(tmp_path, 7, 2) == tmp_path / "vocable-7.png"
    (tmp_path / "vocable-7-2.png").touch()
    assert choose_output(tmp_path, 7, 2) == tmp_path / "vocable-7(2).png"


def test_a_named_picture_is_taken_as_named(tmp_path: Path) -> None:
    (tmp_path / "mine.png").touch()
    assert choose_output(tmp_path / "mine.png", 7, 1) == tmp_path / "mine.png"


def test_a_name_without_png_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocableError, match=r"End it in \.png") as caught:
        choose_output(tmp_path / "mine.jpg", 7, 1)
    assert caught.value.code == "usage.output"


@pytest.mark.parametrize("text", ["64x48", "64X48", " 64×48 "])
def test_a_size_is_width_by_height(text: str) -> None:
    assert parse_size(text) == (64, 48)


@pytest.mark.parametrize("text", ["", "64", "64x", "ax64", "-1x64", "64x64x64", "1e2x3"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(VocableError, match="64x64"):
        parse_size(text)
