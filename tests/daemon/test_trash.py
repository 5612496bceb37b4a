"""What is kept of files that are replaced or deleted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from daemon.trash import keep_copy, move_away
from engine.errors import VocableError


def make(path: Path, text: str, *, mtime_ns: int = 10**18) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def kept(trash: Path) -> list[str]:
    return [path.read_text() for path in sorted(trash.iterdir())]


def refuse(path: Path, **options: bool) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_two_files_of_one_name_and_time_are_both_kept(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        move_away(make(tmp_path / folder / "fox.pt", folder), tmp_path / "trash")
    assert kept(tmp_path / "trash") == ["one", "two"]


def test_the_same_file_is_kept_once(tmp_path: Path) -> None:
    path = make(tmp_path / "fox.pt", "a fox")
    keep_copy(path, tmp_path / "trash")
    keep_copy(path, tmp_path / "trash")
    assert kept(tmp_path / "trash") == ["a fox"]


def test_a_file_whose_name_is_too_long_for_the_trash_stays_with_the_reason(tmp_path: Path) -> None:
    path = make(tmp_path / f"{'f' * 252}.pt", "a fox")
    with pytest.raises(VocableError, match="name too long") as caught:
        move_away(path, tmp_path / "trash")
    assert caught.value.code == "disk.write"
    assert path.read_text() == "a fox"


def test_a_file_that_cannot_be_removed_stays_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "fox.pt", "a fox")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(VocableError, match="Read-only") as caught:
        move_away(path, tmp_path / "trash")
    assert caught.value.code == "disk.write"
