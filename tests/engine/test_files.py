from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from engine.errors import VocableError
from engine.files import current_umask, write_atomically


def test_a_file_is_written_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "disk.full"), (errno.EIO, "disk.write")])
def test_a_write_that_fails_leaves_the_old_content_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(VocableError) as caught:
        write_atomically(path, b"new")
    assert caught.value.code == code
    assert str(path) in caught.value.title
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_content_that_does_not_verify_does_not_take_the_name(tmp_path: Path) -> None:
    def refuse(data: bytes) -> None:
        assert data == b"new"
        raise VocableError("test.refused", "Refused.")

    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(VocableError, match="Refused"):
        write_atomically(path, b"new", verify=refuse)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_a_very_long_name_has_room_for_its_temporary(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_long_name_of_many_bytes_a_letter_is_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'я' * 125}.png"
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"
