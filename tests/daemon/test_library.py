"""A real folder, real inspectors: files that come, change and go are words that come, change and go."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.inspector.frames import Message
from daemon.inspector.inspector import Inspector
from daemon.inspector.verdicts import STEM
from daemon.library import Library
from daemon.protocol.service import WordView
from daemon.tables import Target
from daemon.watch import Timing
from daemon.words import EMBEDDINGS
from engine.embedding.read import read_embedding
from engine.embedding.tensors import encode_tensors
from engine.embedding.vectors import Embedding
from engine.errors import VocableError
from tests.daemon.words import WIDTH, drop, picture, word_file, word_picture

PATIENCE_S = 30.0
"""Only a hang takes this long."""

TARGET = Target("starter \x1b[31m", WIDTH)
"""What the files of `tests.daemon.words` were made for."""

QUICK = Timing(settle_s=0.05, large_settle_s=0.1, empty_settle_s=0.2, poll_s=0.1, gather_s=0.01)


class Watched(Inspector):
    """An inspector that tells what it was asked, and may die of it."""

    def __init__(self) -> None:
        super().__init__(idle_s=600)
        self.seen: list[bytes] = []
        self.deadly = b""

    async def ask(self, question: Message, parts: Sequence[bytes]) -> tuple[Message, list[bytes]]:
        self.seen.append(parts[0])
        if parts[0] == self.deadly:
            raise VocableError("inspector.lost", "The process that read it died (SIGKILL).")
        return await super().ask(question, parts)


class Shelf:
    """A library whose changes can be awaited, and what its inspector had to look at."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.folder = root / "embeddings"
        self.inspector = Watched()
        self._news = asyncio.Event()
        self.library = Library(
            EMBEDDINGS,
            folder=self.folder,
            cache=root / "cache",
            inspector=self.inspector,
            on_change=self._news.set,
            timing=QUICK,
            **options,
        )
        self.library.fit(TARGET)

    @property
    def words(self) -> list[WordView]:
        return [WordView(**view) for view in self.library.table.views]

    @property
    def views(self) -> dict[str, WordView]:
        """By file, relative to the folder."""
        return {str(Path(view.path).relative_to(self.folder)): view for view in self.words}

    @property
    def usable(self) -> set[str]:
        return {view.name for view in self.words if view.usable}

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


def read_canonical(word: dict[str, Any]) -> Embedding:
    return read_embedding(Path(word["path"]).read_bytes(), word["name"])


Open = Callable[..., Awaitable[Shelf]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "embeddings").mkdir()
    return tmp_path / "embeddings"


@pytest.fixture
async def open_shelf(tmp_path: Path, folder: Path) -> AsyncIterator[Open]:
    opened: list[Shelf] = []

    async def begin(shelf: Shelf | None = None, **options: Any) -> Shelf:
        shelf = shelf or Shelf(tmp_path, **options)
        opened.append(shelf)
        await shelf.library.start()
        return shelf

    yield begin
    for shelf in opened:
        await shelf.library.stop()
        await shelf.inspector.close()


@pytest.mark.parametrize("polling", [None, True])
async def test_a_file_dropped_replaced_renamed_and_removed_is_a_word_likewise(
    folder: Path, open_shelf: Open, polling: bool | None
) -> None:
    shelf = await open_shelf(polling=polling)
    drop(folder / "fox.safetensors", word_file(0.25, vectors=3))
    await shelf.until(lambda: shelf.usable == {"fox"})
    view = shelf.views["fox.safetensors"]
    assert (view.vectors, view.width, view.step, view.reason) == (3, WIDTH, 7, "")
    (word,) = shelf.library.usable()
    canonical = read_canonical(word)
    assert canonical.name == "fox"
    assert canonical.vectors.shape == (3, WIDTH)
    assert (canonical.vectors == 0.25).all()

    (folder / "fox.safetensors").write_bytes(word_file(0.75))
    await shelf.until(lambda: shelf.views["fox.safetensors"].vectors == 2)
    assert shelf.library.usable()[0]["hash"] != word["hash"]

    (folder / "sub").mkdir()
    (folder / "fox.safetensors").rename(folder / "sub" / "red fox.safetensors")
    await shelf.until(lambda: shelf.usable == {"red fox"})
    (folder / "sub" / "red fox.safetensors").unlink()
    await shelf.until(lambda: shelf.usable == set())
    assert shelf.library.usable() == []


async def test_a_picture_that_carries_a_word_is_one_and_others_are_nothing(folder: Path, open_shelf: Open) -> None:
    shelf = await open_shelf()
    (folder / "carrier.png").write_bytes(word_picture())
    (folder / "plain.png").write_bytes(picture())
    (folder / "fox.preview.png").write_bytes(word_picture())
    (folder / "readme.txt").write_text("hello")
    await shelf.until(lambda: "carrier" in shelf.usable)
    await shelf.library.rescan()
    assert list(shelf.views) == ["carrier.png"]


async def test_bad_files_say_why_and_hide_no_good_one(folder: Path, open_shelf: Open) -> None:
    good = word_file()
    (folder / "cut.safetensors").write_bytes(good[:-10])
    (folder / "noise.safetensors").write_bytes(b"\xde\xad\xbe\xef" * 100)
    (folder / "spoilt.safetensors").write_bytes(word_file(1.0).replace(b"\x00\x00\x80\x3f", b"\x00\x00\xc0\x7f"))
    (folder / "old.pt").write_bytes(b"PK\x03\x04" + b"x" * 50)
    (folder / "damaged.png").write_bytes(word_picture()[:60])
    (folder / "wide.safetensors").write_bytes(word_file(width=WIDTH + 1))
    (folder / "good.safetensors").write_bytes(good)
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert shelf.usable == {"good"}
    reasons = {name: view.reason for name, view in shelf.views.items() if not view.usable}
    assert reasons.keys() == {
        "cut.safetensors",
        "noise.safetensors",
        "spoilt.safetensors",
        "old.pt",
        "damaged.png",
        "wide.safetensors",
    }
    assert all(len(reason) > 20 for reason in reasons.values())
    assert "NaN" in reasons["spoilt.safetensors"]
    assert str(WIDTH + 1) in reasons["wide.safetensors"]
    assert str(WIDTH) in reasons["wide.safetensors"]


async def test_a_word_of_another_width_is_usable_with_the_model_it_fits(folder: Path, open_shelf: Open) -> None:
    (folder / "wide.safetensors").write_bytes(word_file(width=WIDTH + 1))
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert shelf.usable == set()
    assert [word["name"] for word in shelf.library.usable()] == ["wide"]
    assert shelf.views["wide.safetensors"].verdict == "wrong_width"
    shelf.library.fit(Target("other", WIDTH + 1))
    await shelf.until(lambda: shelf.usable == {"wide"})
    assert "not on other" in shelf.views["wide.safetensors"].warning


async def test_nothing_but_files_is_opened_and_nothing_blocks(folder: Path, tmp_path: Path, open_shelf: Open) -> None:
    (tmp_path / "outside.safetensors").write_bytes(word_file())
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (folder / "dangling.safetensors").symlink_to("nowhere")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    with (folder / "huge.safetensors").open("wb") as file:
        file.truncate(8 << 30)
    (folder / "good.safetensors").write_bytes(word_file())
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert shelf.usable == {"good"}
    assert {name for name, view in shelf.views.items() if not view.usable} == {
        "link.safetensors",
        "dangling.safetensors",
        "pipe.safetensors",
        "huge.safetensors",
    }
    assert "not a file" in shelf.views["pipe.safetensors"].reason
    assert "8192 MiB" in shelf.views["huge.safetensors"].reason


async def test_of_files_that_claim_one_name_one_has_it_and_the_others_say_which(folder: Path, open_shelf: Open) -> None:
    (folder / "sub").mkdir()
    (folder / "fox.safetensors").write_bytes(word_file(0.1))
    (folder / "Fox.safetensors").write_bytes(word_file(0.2, width=WIDTH + 1))
    (folder / "(fox).safetensors").write_bytes(word_file(0.3))
    (folder / "fox.png").write_bytes(word_picture())
    (folder / "sub" / "fox.safetensors").write_bytes(word_file(0.4))
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert sorted(word["width"] for word in shelf.library.usable()) == [WIDTH, WIDTH + 1]
    assert [name for name, view in shelf.views.items() if view.usable] == ["(fox).safetensors"]
    assert shelf.views["fox.png"].verdict == "shadowed"
    assert shelf.views["Fox.safetensors"].verdict == "wrong_width"
    assert "(fox).safetensors has the same name" in shelf.views["fox.png"].reason
    (folder / "(fox).safetensors").unlink()
    await shelf.library.rescan()
    assert [name for name, view in shelf.views.items() if view.usable] == ["fox.safetensors"]


async def test_a_broken_file_does_not_take_the_name_of_a_good_one(folder: Path, open_shelf: Open) -> None:
    (folder / "fox.safetensors").write_bytes(word_file()[:50])
    (folder / "fox.png").write_bytes(word_picture())
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert [name for name, view in shelf.views.items() if view.usable] == ["fox.png"]


async def test_foreign_text_cannot_steer_a_terminal(folder: Path, open_shelf: Open) -> None:
    (folder / "a\x1b]52;c;eA==\x07\u202eb.safetensors").write_bytes(word_file())
    (folder / os.fsdecode(b"\xff\xfe.safetensors")).write_bytes(word_file())
    shelf = await open_shelf()
    await shelf.library.rescan()
    told = "".join(view.model_dump_json() for view in shelf.words)
    assert len(shelf.words) == 2
    assert told.isascii()
    assert "\\u001b" not in told
    assert {view.name for view in shelf.words if view.usable} == {"a52ceAb"}


async def test_verdicts_survive_a_restart_and_are_not_asked_for_twice(folder: Path, open_shelf: Open) -> None:
    (folder / "fox.safetensors").write_bytes(word_file())
    (folder / "twin.safetensors").write_bytes(word_file())
    (folder / "cut.safetensors").write_bytes(word_file()[:-1])
    first = await open_shelf()
    await first.library.rescan()
    assert sorted(first.inspector.seen) == sorted([word_file(), word_file()[:-1]])
    (folder / "again.safetensors").write_bytes(word_file()[:-1])
    second = await open_shelf()
    await second.library.rescan()
    assert second.inspector.seen == []
    assert not second.views["again.safetensors"].usable
    assert {name: view for name, view in second.views.items() if name != "again.safetensors"} == first.views


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: bytes(len(data)), lambda data: b""])
async def test_a_torn_canonical_file_is_never_used(
    folder: Path, tmp_path: Path, open_shelf: Open, spoil: Callable[[bytes], bytes]
) -> None:
    (folder / "fox.safetensors").write_bytes(word_file())
    await (await open_shelf()).library.rescan()
    for path in (tmp_path / "cache" / "embeddings").glob("*.safetensors"):
        path.write_bytes(spoil(path.read_bytes()))
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert (read_canonical(shelf.library.usable()[0]).vectors == 0.5).all()


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"version": 2}', b"[]", b"\0" * 300])
async def test_a_torn_verdict_is_found_out_again(
    folder: Path, tmp_path: Path, open_shelf: Open, content: bytes
) -> None:
    (folder / "fox.safetensors").write_bytes(word_file())
    await (await open_shelf()).library.rescan()
    for path in (tmp_path / "cache" / "embeddings").glob("*.json"):
        path.write_bytes(content)
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert shelf.usable == {"fox"}
    assert len(shelf.inspector.seen) == 1


async def test_an_error_names_the_word_by_each_file_that_has_it(folder: Path, open_shelf: Open) -> None:
    spoilt = word_file(1.0).replace(b"\x00\x00\x80\x3f", b"\x00\x00\xc0\x7f")
    (folder / "fox.safetensors").write_bytes(spoilt)
    (folder / "owl.safetensors").write_bytes(spoilt)
    shelf = await open_shelf()
    await shelf.library.rescan()
    assert len(shelf.inspector.seen) == 1
    for name in ("fox", "owl"):
        assert f"'{name}'" in shelf.views[f"{name}.safetensors"].reason
    assert STEM not in str(shelf.views)


async def test_a_deleted_cache_is_made_again(folder: Path, tmp_path: Path, open_shelf: Open) -> None:
    (folder / "fox.safetensors").write_bytes(word_file())
    shelf = await open_shelf()
    await shelf.library.rescan()
    shutil.rmtree(tmp_path / "cache")
    await shelf.library.rescan()
    assert read_canonical(shelf.library.usable()[0]).name == "fox"


async def test_the_verdict_of_a_file_that_is_gone_leaves_the_cache_in_time(
    folder: Path, tmp_path: Path, open_shelf: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("REST_S", 0.0), ("SPARE_FILES", 0)):
        monkeypatch.setattr(f"daemon.inspector.verdicts.{name}", value)
    monkeypatch.setattr("daemon.library._CHECK_S", 0.02)
    (folder / "fox.safetensors").write_bytes(word_file(0.5))
    (folder / "owl.safetensors").write_bytes(word_file(0.75))
    shelf = await open_shelf()
    await shelf.library.rescan()
    (folder / "owl.safetensors").unlink()
    async with asyncio.timeout(PATIENCE_S):
        while len(os.listdir(tmp_path / "cache" / "embeddings")) > 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await shelf.library.rescan()
    assert shelf.usable == {"fox"}
    assert (read_canonical(shelf.library.usable()[0]).vectors == 0.5).all()
    assert len(shelf.inspector.seen) == 2


async def test_a_file_whose_inspector_dies_is_given_up_once_and_the_next_is_read(
    folder: Path, open_shelf: Open
) -> None:
    (folder / "bomb.safetensors").write_bytes(b"tick")
    (folder / "good.safetensors").write_bytes(word_file())
    shelf = Shelf(folder.parent)
    shelf.inspector.deadly = b"tick"
    await open_shelf(shelf)
    await shelf.library.rescan()
    await shelf.library.rescan()
    assert shelf.usable == {"good"}
    assert "SIGKILL" in shelf.views["bomb.safetensors"].reason
    assert shelf.inspector.seen.count(b"tick") == 1


async def test_a_file_that_cannot_be_opened_is_tried_again_by_itself(
    folder: Path, open_shelf: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.examine._RETRIES_S", (0.05, 0.05))
    real, refusals = os.open, [1, 1]

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("fox.safetensors") and refusals:
            refusals.pop()
            raise OSError(16, "busy")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    (folder / "fox.safetensors").write_bytes(word_file())
    shelf = await open_shelf()
    await shelf.until(lambda: shelf.usable == {"fox"})
    assert refusals == []


@pytest.mark.parametrize("polling", [None, True])
async def test_a_file_replaced_with_the_same_size_and_time_is_read_again(
    folder: Path, open_shelf: Open, polling: bool | None
) -> None:
    path = folder / "fox.safetensors"
    path.write_bytes(word_file(0.25))
    shelf = await open_shelf(polling=polling)
    await shelf.library.rescan()
    before, status = shelf.library.usable(), path.stat()
    drop(path, word_file(0.75))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    await shelf.until(lambda: shelf.library.usable() != before)
    assert (read_canonical(shelf.library.usable()[0]).vectors == 0.75).all()


async def test_a_file_that_is_truncated_in_place_takes_nothing_from_what_a_worker_reads(
    folder: Path, open_shelf: Open
) -> None:
    (folder / "fox.safetensors").write_bytes(word_file(0.5))
    shelf = await open_shelf()
    await shelf.library.rescan()
    told = shelf.library.usable()[0]
    os.truncate(folder / "fox.safetensors", 10)
    assert (read_canonical(told).vectors == 0.5).all()
    await shelf.library.rescan()
    assert shelf.usable == set()
    assert (read_canonical(told).vectors == 0.5).all()


@pytest.mark.parametrize("polling", [None, True])
async def test_words_follow_folders_that_move_go_and_come_again(
    folder: Path, tmp_path: Path, open_shelf: Open, polling: bool | None
) -> None:
    shelf = await open_shelf(polling=polling)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "fox.safetensors").write_bytes(word_file())
    (tmp_path / "shelf").rename(folder / "shelf")
    await shelf.until(lambda: list(shelf.views) == ["shelf/fox.safetensors"])
    (folder / "shelf").rename(folder / "moved")
    await shelf.until(lambda: list(shelf.views) == ["moved/fox.safetensors"])
    folder.rename(tmp_path / "away")  # noqa: ASYNC240
    await shelf.until(lambda: shelf.views == {})
    (tmp_path / "away").rename(folder)
    await shelf.until(lambda: shelf.usable == {"fox"})


async def test_a_file_that_is_written_slowly_becomes_a_word_once(folder: Path, open_shelf: Open) -> None:
    shelf = await open_shelf()
    data = word_file(vectors=64)
    with (folder / "fox.safetensors").open("wb", buffering=0) as file:
        for start in range(0, len(data), 2048):
            file.write(data[start : start + 2048])
            await asyncio.sleep(0.01)
    await shelf.until(lambda: shelf.usable == {"fox"})
    assert shelf.views["fox.safetensors"].vectors == 64


async def test_a_lora_brings_its_words_under_lawful_names(folder: Path, open_shelf: Open) -> None:
    rows = np.full((2, WIDTH), 0.5, np.float32)
    names = ("zorbfox", "../../zorbowl", "con", "zorb\x1b[31mcat")
    tensors = {f"bundle_emb.{name}.string_to_param.*": rows + number for number, name in enumerate(names)}
    (folder / "lora.safetensors").write_bytes(encode_tensors(tensors, {}))
    shelf = await open_shelf()
    await shelf.library.rescan()
    told = shelf.words
    assert any(view.name == "zorbfox" and view.usable for view in told)
    assert all(view.name.isprintable() and "/" not in view.name for view in told)
    assert all(Path(word["path"]).parent.name == "embeddings" for word in shelf.library.usable())


async def test_many_files_are_told_as_they_are_read_and_in_the_end_all(folder: Path, open_shelf: Open) -> None:
    for number in range(300):
        (folder / f"zorb {number}.safetensors").write_bytes(word_file(number / 1000))
    shelf = await open_shelf()
    (folder / "broken.pt").write_bytes(b"PK\3\4")
    await shelf.until(lambda: len(shelf.words) == 301)
    assert len(shelf.usable) == 300
    assert len(shelf.inspector.seen) == len(set(shelf.inspector.seen))


async def test_a_full_disk_is_the_reason_while_it_lasts(
    folder: Path, open_shelf: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.examine._RETRIES_S", (0.05,) * 200)
    full = [True]

    def keep(*arguments: Any) -> None:
        if full:
            raise VocableError("disk.full", "There is no room.", "Free some space and try again.")
        real(*arguments)

    (folder / "fox.safetensors").write_bytes(word_file())
    shelf = await open_shelf()
    real = shelf.library._examiner._verdicts.keep
    monkeypatch.setattr(shelf.library._examiner._verdicts, "keep", keep)
    await shelf.until(lambda: shelf.views and "no room" in shelf.views["fox.safetensors"].reason)
    full.clear()
    await shelf.until(lambda: shelf.usable == {"fox"})
