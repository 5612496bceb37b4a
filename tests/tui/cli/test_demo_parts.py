"""The demo's own arithmetic, its folder of pictures, and its sheet."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.models.starter.sample import HELD_OUT_DIR, TRAIN_DIR
from engine.recipe import build_recipe
from tui.cli.demo import identify, make_recipe
from tui.cli.findings import Findings, close_gap
from tui.cli.sheet import draw_sheet
from tui.cli.trial import place_folder


def found(gap_closed: float | None, identified: float) -> Findings:
    losses = {"init": 0.4, "trained": 0.3, "oracle": 0.3}
    return Findings(losses, gap_closed, {"init": 0.0, "trained": identified}, 1.0, "/e", "/s", "id", "/w")


def test_the_gap_may_be_closed_beyond_the_description() -> None:
    assert close_gap(0.5, 0.4, 0.3) == pytest.approx(0.5)
    assert close_gap(0.42, 0.26, 0.40) == pytest.approx(8)


def test_without_a_gap_nothing_is_closed() -> None:
    assert close_gap(0.3, 0.2, 0.3) is None


def test_a_poor_result_is_called_poor() -> None:
    assert found(0.8, 0.8).shortfalls == []
    assert len(found(0.79, 0.8).shortfalls) == 1
    assert len(found(None, 0.5).shortfalls) == 2


def test_the_demo_recipe_is_lawful() -> None:
    assert build_recipe(make_recipe("zara", "girl", TRAIN_DIR)).data.folder == str(TRAIN_DIR)


def test_the_pictures_are_copied_once_and_never_over_others(tmp_path: Path) -> None:
    target = tmp_path / "datasets" / "sample"
    assert place_folder(TRAIN_DIR, target) == target
    assert place_folder(TRAIN_DIR, target) == target
    (target / "0000.txt").write_text("my own caption")
    second = place_folder(TRAIN_DIR, target)
    assert second == target.with_name("sample 2")
    assert place_folder(TRAIN_DIR, target) == second
    assert (target / "0000.txt").read_text() == "my own caption"


def test_pictures_that_do_not_show_the_character_are_not_identified(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    Image.new("RGB", (64, 64), (128, 128, 128)).save(grey)
    assert identify([grey] * 32) < 0.2


def test_the_sheet_holds_a_row_of_eight_for_each_label(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "sheet.png"
    pictures = sorted(HELD_OUT_DIR.glob("*.png"))
    draw_sheet(path, [("one", pictures), ("two", pictures[:3])])
    with Image.open(path) as sheet, Image.open(pictures[0]) as first:
        assert sheet.size == (8 + 8 * 136, 8 + 2 * 164)
        assert sheet.getpixel((8 + 2, 8 + 28 + 2)) == first.convert("RGB").getpixel((1, 1))
        assert sheet.getpixel((sheet.width - 20, sheet.height - 20)) == (250, 250, 248)
