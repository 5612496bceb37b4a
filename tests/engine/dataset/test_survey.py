from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from engine.dataset.latents import FetchedPicture
from engine.dataset.manifest import Entry
from engine.dataset.pictures import decode_picture
from engine.dataset.survey import GATHER_S, PATIENCE_S, Offer, Settled, Survey, Trouble


def fetch(sha256: str, data: bytes, path: Path) -> FetchedPicture:
    return FetchedPicture(sha256, path.name, None, decode_picture(data, path).image)


class Folder:
    """A folder that is surveyed from its creation on; a look a second unless a test says otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.survey = Survey(path, {"old.png": Entry("0", "old")}, {}, fetch=fetch)
        self.now = 0.0

    def paint(self, name: str, shade: int = 0) -> None:
        Image.new("L", (8, 8), shade).save(self.path / name, format="PNG")

    def look(self, after_s: float = 1.0) -> list[Offer]:
        self.now += after_s
        return [offer for offer in self.survey.look(self.now) if offer is not None]

    def names(self, offers: list[Offer]) -> list[list[str]]:
        return [list(offer.manifest) for offer in offers if isinstance(offer, Settled)]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.paint("old.png")
    folder.look()
    folder.look()
    return folder


def test_a_file_is_taken_when_two_looks_found_it_the_same(folder: Folder) -> None:
    folder.paint("new.png", 1)
    assert folder.look() == []
    folder.paint("new.png", 2)
    assert folder.look() == []
    fetched, settled = folder.look()
    assert isinstance(fetched, FetchedPicture)
    assert fetched.name == "new.png"
    assert folder.names([settled]) == [["new.png", "old.png"]]
    assert folder.look() == []


def test_a_half_copied_picture_is_waited_for_and_named_once_when_nothing_more_comes(folder: Folder) -> None:
    folder.paint("half.png", 3)
    whole = (folder.path / "half.png").read_bytes()
    (folder.path / "half.png").write_bytes(whole[: len(whole) // 2])
    assert [offer for _ in range(5) for offer in folder.look()] == []
    (trouble,) = folder.look(PATIENCE_S)
    assert isinstance(trouble, Trouble)
    assert "half.png" in trouble.title
    assert [offer for _ in range(5) for offer in folder.look(PATIENCE_S)] == []
    (folder.path / "half.png").write_bytes(whole)
    folder.look()
    assert folder.names(folder.look()) == [["half.png", "old.png"]]


def test_while_files_keep_changing_what_has_settled_is_taken_only_so_often(folder: Folder) -> None:
    offers = []
    for shade in range(int(GATHER_S) + 5):
        if shade < 3:
            folder.paint(f"done {shade}.png", shade)
        folder.paint("busy.png", shade)
        offers += folder.look()
    assert folder.names(offers) == [["done 0.png", "done 1.png", "done 2.png", "old.png"]]


def test_a_caption_that_is_saved_by_renaming_is_taken(folder: Folder) -> None:
    (folder.path / "draft").write_text("a better caption")
    os.replace(folder.path / "draft", folder.path / "old.txt")
    folder.look()
    (settled,) = folder.look()
    assert isinstance(settled, Settled)
    assert settled.manifest["old.png"].caption == "a better caption"


def test_what_cannot_be_read_any_more_stays_as_it_was(folder: Folder) -> None:
    (folder.path / "old.png").write_bytes(b"no picture")
    folder.look()
    folder.look()
    (trouble,) = folder.look(PATIENCE_S)
    assert isinstance(trouble, Trouble)
    assert "as it was" in trouble.hint
    (folder.path / "old.txt").write_bytes(b"\xff")
    folder.look()
    assert folder.names(folder.look(PATIENCE_S) + folder.look(PATIENCE_S)) == []


def test_a_removed_picture_is_gone_after_two_looks(folder: Folder) -> None:
    folder.paint("new.png", 1)
    folder.look(), folder.look()
    (folder.path / "old.png").unlink()
    assert folder.look() == []
    assert folder.names(folder.look()) == [["new.png"]]


def test_hidden_and_other_files_are_passed_over(folder: Folder) -> None:
    for name in (".new.png.Xy12", "new.png.part", "notes.txt"):
        folder.paint(name)
    (folder.path / "folder.png").mkdir()
    assert [offer for _ in range(3) for offer in folder.look()] == []
