from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.templates import fill_template, find_template, read_template, shipped_templates
from engine.errors import VocableError


@pytest.mark.parametrize(
    ("line", "filewords", "prompt"),
    [
        ("a photo of [name], [filewords]", "smiling", "a photo of mia, smiling"),
        ("a photo of [name], [filewords]", "", "a photo of mia"),
        ("a photo of [name], [filewords], outdoors", "", "a photo of mia, outdoors"),
        ("[filewords], a photo of [name]", "", "a photo of mia"),
        ("a painting of [filewords] in the style of [name]", "", "a painting in the style of mia"),
        ("[filewords]", "", ""),
        ("[name] and [filewords]", "[name] [filewords]", "mia and [name] [filewords]"),
        ("[other] [name]", "x", "[other] mia"),
    ],
)
def test_places_are_filled_and_empty_captions_leave_nothing_behind(line: str, filewords: str, prompt: str) -> None:
    assert fill_template(line, name="mia", filewords=filewords) == prompt


def test_blank_lines_and_comments_are_no_prompts(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbf# how it is used\r\n\r\n  a photo of [name]  \r\n#[name]\r\n[name]")
    assert read_template(path) == ("a photo of [name]", "[name]")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"[name]\n\na photo of name\n", "line 3"), (b"# nothing\n\n", "no prompt"), (b"[name] \xff", "UTF-8")],
)
def test_a_template_that_cannot_train_is_refused_with_file_and_place(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(data)
    with pytest.raises(VocableError, match=reason) as caught:
        read_template(path)
    assert caught.value.code == "template.invalid"
    assert str(path) in caught.value.title


def test_templates_of_the_workspace_come_before_the_shipped_ones(tmp_path: Path) -> None:
    assert find_template("subject", [tmp_path]).parent == shipped_templates()
    (tmp_path / "subject.txt").write_text("[name]")
    assert find_template("subject", [tmp_path]) == find_template("subject.txt", [tmp_path]) == tmp_path / "subject.txt"


def test_a_template_is_found_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("[name]")
    assert find_template(str(tmp_path / "mine.txt"), []) == tmp_path / "mine.txt"


def test_an_unknown_template_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(VocableError, match="subject_filewords") as caught:
        find_template("sujet", [])
    assert caught.value.code == "template.unknown"


@pytest.mark.parametrize(
    "name", ["none", "portrait_filewords", "style", "style_filewords", "subject", "subject_filewords"]
)
def test_shipped_templates_read_and_use_captions_where_their_name_says_so(name: str) -> None:
    lines = read_template(find_template(name, []))
    assert all(("[filewords]" in line) == name.endswith("_filewords") for line in lines)


def test_a_hypernetwork_s_template_needs_captions_only(tmp_path: Path) -> None:
    path = find_template("hypernetwork", [])
    assert all("[filewords]" in line for line in read_template(path, needs_name=False))
    with pytest.raises(VocableError, match=r"\[name\]"):
        read_template(path)
    (tmp_path / "mine.txt").write_text("a picture\n")
    with pytest.raises(VocableError, match="line 1"):
        read_template(tmp_path / "mine.txt", needs_name=False)
