"""What is kept of contents that no file has any more: some, and nothing that is in use goes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.inspector import verdicts
from daemon.inspector.facts import WordFacts
from daemon.inspector.verdicts import REST_S, Verdict, VerdictCache

WORD = WordFacts("", "fox", 2, 768, 0, "sd1", 7, "", "", "")


class Shelf:
    """A cache with some contents, each with one canonical file of ten bytes, older ones first."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.cache = VerdictCache(folder, WordFacts)
        self.contents = {f"{number:064x}": self._keep(number) for number in range(count)}

    def _keep(self, number: int) -> Verdict[WordFacts]:
        verdict = Verdict("webui-pt", (replace(WORD, canonical=f"{number + 1000:064x}"),))
        self.cache.keep(f"{number:064x}", verdict, [b"0123456789"])
        for path in (self.folder / f"{number:064x}.json", self.folder / f"{number + 1000:064x}.safetensors"):
            os.utime(path, (number, number))
        return verdict

    def prune(self, *used: int, now_s: float) -> None:
        contents = list(self.contents.items())
        self.cache.prune([contents[number] for number in used], now_s=now_s)

    def left(self) -> list[int]:
        """The contents whose record and canonical file are both there."""
        names = set(os.listdir(self.folder))
        assert len(names) % 2 == 0
        return [n for n in range(len(self.contents)) if {f"{n:064x}.json", f"{n + 1000:064x}.safetensors"} <= names]


def test_what_is_in_use_stays_however_old_and_of_the_rest_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "SPARE_FILES", 4)
    shelf = Shelf(tmp_path, 8)
    shelf.prune(0, 3, now_s=0)
    shelf.prune(0, 3, now_s=REST_S)
    assert shelf.left() == [0, 3, 6, 7]


def test_what_was_in_use_a_moment_ago_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "SPARE_FILES", 0)
    shelf = Shelf(tmp_path, 3)
    shelf.prune(0, 1, now_s=0)
    shelf.prune(0, now_s=REST_S - 1)
    assert shelf.left() == [0, 1, 2]
    shelf.prune(0, now_s=REST_S)
    assert shelf.left() == [0, 1]
    shelf.prune(0, 1, now_s=2 * REST_S)
    shelf.prune(0, now_s=3 * REST_S)
    assert shelf.left() == [0, 1]


def test_few_large_files_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = (Shelf(tmp_path, 4).folder / f"{0:064x}.json").stat().st_size
    monkeypatch.setattr(verdicts, "SPARE_BYTES", 2 * (record + 10))
    shelf = Shelf(tmp_path, 4)
    shelf.prune(now_s=0)
    shelf.prune(now_s=REST_S)
    assert shelf.left() == [2, 3]


def test_a_small_cache_is_left_alone_and_a_missing_one_is_no_error(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "cache", 5)
    for hour in range(3):
        shelf.prune(now_s=hour * REST_S)
    assert shelf.left() == [0, 1, 2, 3, 4]
    VerdictCache(tmp_path / "missing", WordFacts).prune([], now_s=0)
