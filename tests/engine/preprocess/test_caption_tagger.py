"""Taggers: which tags make a caption and how they are written, and a tiny ONNX model through onnxruntime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import VocableError
from engine.preprocess.caption_files import check_tagger
from engine.preprocess.caption_tagger import Tag, choose_tags, open_tagger, read_tags
from engine.preprocess.request import Tags
from tests.engine.preprocess.onnx_model import tagger_bytes

TABLE = """tag_id,name,category,count
1,general,9,100
2,blue_sky,0,50
3,red_dress_(clothes),0,40
4,some_hero,4,10
5,^_^,0,10
"""

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime (extra tagger) is not installed"
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "selected_tags.csv"
    path.write_text(TABLE)
    return path


def choose(table: Path, scores: list[float], **rules: object) -> list[str]:
    return choose_tags(read_tags(table), np.array(scores, np.float32), Tags.model_validate(rules))


def test_ratings_are_left_out_and_characters_come_first(table: Path) -> None:
    assert choose(table, [0.99, 0.9, 0.6, 0.9, 0.2]) == ["some hero", "blue sky", r"red dress \(clothes\)"]


def test_each_category_has_its_threshold(table: Path) -> None:
    assert choose(table, [0, 0.5, 0.49, 0.84, 0]) == ["blue sky"]
    assert choose(table, [0, 0.5, 0.49, 0.84, 0], threshold=0.3, character_threshold=0.8) == [
        "some hero",
        "blue sky",
        r"red dress \(clothes\)",
    ]


def test_an_emoticon_keeps_its_underscore(table: Path) -> None:
    assert choose(table, [0, 0, 0, 0, 1]) == ["^_^"]


def test_a_long_tag_of_underscores_takes_no_time(table: Path) -> None:
    table.write_text(f"name,category\n{'_' * 3000}two words,0\n")
    assert choose(table, [1]) == [" " * 3000 + "two words"]


def test_underscores_and_brackets_stay_when_asked(table: Path) -> None:
    assert choose(table, [0, 0, 1, 1, 0], spaces=False, escape=False) == ["some_hero", "red_dress_(clothes)"]


def test_tags_can_be_ordered_by_name_and_carry_their_scores(table: Path) -> None:
    shown = choose(table, [0, 0.75, 0.875, 0, 0], sort="name", weights=True)
    assert shown == ["(blue sky:0.750)", r"(red dress \(clothes\):0.875)"]


def test_excluded_tags_are_named_in_either_spelling(table: Path) -> None:
    assert choose(table, [0, 1, 1, 1, 1], exclude="Blue Sky, some_hero,^_^") == [r"red dress \(clothes\)"]


def test_a_table_without_its_columns_is_told(table: Path) -> None:
    table.write_text("id;tag\n1;sky\n")
    with pytest.raises(VocableError, match=r"columns name and category"):
        read_tags(table)


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VocableError, match=r"vocable\[tagger\]") as caught:
        check_tagger(tmp_path)
    assert caught.value.code == "caption.extra"


@needs_onnx
def test_what_to_put_where_is_told(table: Path) -> None:
    with pytest.raises(VocableError, match=r"lacks model.onnx\. Put model.onnx and selected_tags.csv") as caught:
        check_tagger(table.parent)
    assert caught.value.code == "caption.missing"


def write_model(folder: Path, shape: list[int | str], colours_at: int) -> None:
    """`blue_sky` for a picture more than half blue, `red_dress` for one more than half red; colours are b, g, r."""
    weights, bias = np.zeros((3, 5), np.float32), np.full(5, -20, np.float32)
    weights[0, 1] = weights[2, 2] = 40 / 255
    (folder / "model.onnx").write_bytes(tagger_bytes(weights, bias, shape, colours_at))


@needs_onnx
@pytest.mark.parametrize(("shape", "colours_at"), [(["n", 32, 32, 3], 3), ([1, 3, 32, 32], 1), (["n", "h", "w", 3], 3)])
def test_a_model_tags_what_it_sees(table: Path, shape: list[int | str], colours_at: int) -> None:
    write_model(table.parent, shape, colours_at)
    tag = open_tagger(table.parent, device="cpu", rules=Tags())
    assert tag(Image.new("RGB", (40, 30), "blue")) == "blue sky"
    assert tag(Image.new("RGB", (32, 32), "red")) == r"red dress \(clothes\)"
    assert tag(Image.new("RGB", (32, 32), "black")) == ""


@needs_onnx
def test_a_picture_is_laid_on_a_white_square(table: Path) -> None:
    write_model(table.parent, ["n", 32, 32, 3], 3)
    tag = open_tagger(table.parent, device="cpu", rules=Tags())
    assert tag(Image.new("RGB", (10, 40), "black")) == r"blue sky, red dress \(clothes\)"


@needs_onnx
def test_a_table_of_another_model_is_told_before_any_picture(table: Path) -> None:
    write_model(table.parent, ["n", 32, 32, 3], 3)
    table.write_text(TABLE + "6,more,0,1\n")
    with pytest.raises(VocableError, match=r"scores 5 tags, but selected_tags\.csv names 6"):
        open_tagger(table.parent, device="cpu", rules=Tags())


@needs_onnx
@pytest.mark.parametrize(
    ("shape", "reason"),
    [([2, 32, 32, 3], "Got invalid dimensions"), (["n", 10**6, 10**6, 3], "takes pictures of 1000000 pixels")],
)
def test_a_model_that_takes_something_else_is_told_before_any_picture(
    table: Path, shape: list[int | str], reason: str
) -> None:
    write_model(table.parent, shape, 3)
    with pytest.raises(VocableError, match=reason) as caught:
        open_tagger(table.parent, device="cpu", rules=Tags())
    assert caught.value.code == "caption.unreadable"


@needs_onnx
@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"not a model at all"])
def test_a_damaged_model_is_told(table: Path, data: bytes) -> None:
    (table.parent / "model.onnx").write_bytes(data)
    with pytest.raises(VocableError, match="cannot be used") as caught:
        open_tagger(table.parent, device="cpu", rules=Tags())
    assert caught.value.code == "caption.unreadable"


def test_tags_are_read_in_the_order_of_the_scores(table: Path) -> None:
    assert read_tags(table)[1:3] == [Tag("blue_sky", 0), Tag("red_dress_(clothes)", 0)]
