"""A dataset's pictures and captions over the API: shown, changed all or none, and taken back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.captions import change_captions, open_picture, show_dataset
from daemon.protocol.data import CaptionChange
from engine.dataset.captions import MAX_CAPTION_BYTES
from engine.errors import VocableError
from tests.daemon.conftest import Running, open_http


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "datasets" / "fox"
    folder.mkdir(parents=True)
    for name in ("10-a red fox.png", "2.jpg", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    (folder / "2.txt").write_text("a fox,\nin snow\n")
    (tmp_path / "secret.png").write_text("secret")
    return [tmp_path / "datasets"]


def change(picture: str, text: str | None, was: str | None) -> CaptionChange:
    return CaptionChange(picture=picture, text=text, was=was)


def code_of(folders: list[Path], *changes: CaptionChange) -> str:
    with pytest.raises(VocableError) as caught:
        change_captions("fox", changes, folders)
    return caught.value.code


def test_pictures_stand_in_natural_order_with_what_training_says_of_them(folders: list[Path]) -> None:
    detail = show_dataset("fox", folders)
    assert [(file.name, file.caption, file.text) for file in detail.files] == [
        ("2.jpg", "a fox, in snow", "a fox,\nin snow\n"),
        ("10-a red fox.png", "a red fox", None),
    ]
    assert (detail.pictures, detail.captions) == (2, 1)


def test_an_unreadable_caption_is_told_beside_its_picture(folders: list[Path]) -> None:
    (folders[0] / "fox" / "2.txt").write_bytes(b"\xff\xfe")
    first, second = show_dataset("fox", folders).files
    assert first.error is not None
    assert first.error.code == "dataset.caption"
    assert second.error is None


def test_a_pipe_or_folder_beside_a_picture_is_no_caption_and_holds_nobody_up(folders: list[Path]) -> None:
    os.mkfifo(folders[0] / "fox" / "10-a red fox.txt")
    (folders[0] / "fox" / "3.png").touch()
    (folders[0] / "fox" / "3.txt").mkdir()
    errors = [file.error and file.error.code for file in show_dataset("fox", folders).files]
    assert errors == [None, "dataset.caption", "dataset.caption"]
    assert code_of(folders, change("10-a red fox.png", "new", None)) == "dataset.caption"


def test_a_folder_with_a_pictures_ending_is_no_picture(folders: list[Path]) -> None:
    (folders[0] / "fox" / "album.png").mkdir()
    assert [file.name for file in show_dataset("fox", folders).files] == ["2.jpg", "10-a red fox.png"]


@pytest.mark.parametrize("name", ["../datasets/fox", ".", "..", "", "none", "fox/", "fox\0", "a" * 300])
def test_no_name_leads_out_of_the_datasets(folders: list[Path], name: str) -> None:
    with pytest.raises(VocableError) as caught:
        show_dataset(name, folders)
    assert caught.value.code == "dataset.missing"


def test_changes_are_made_and_their_undo_brings_every_byte_back(folders: list[Path]) -> None:
    folder = folders[0] / "fox"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    changes = [change("2.jpg", "an owl", "a fox,\nin snow\n"), change("10-a red fox.png", "a fox ☃", None)]
    undo = change_captions("fox", changes, folders).undo
    assert [file.caption for file in show_dataset("fox", folders).files] == ["an owl", "a fox ☃"]
    change_captions("fox", undo, folders)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_is_written_when_one_caption_is_another_by_now(folders: list[Path]) -> None:
    stale = change("10-a red fox.png", "new", "never there")
    assert code_of(folders, change("2.jpg", "new", "a fox,\nin snow\n"), stale) == "caption.changed"
    assert (folders[0] / "fox" / "2.txt").read_text() == "a fox,\nin snow\n"


def test_what_cannot_be_changed_is_refused(folders: list[Path]) -> None:
    folder = folders[0] / "fox"
    for name in ("none.png", "../secret.png", "notes.txt", ".hidden.png", "2.txt", "a\0.png", f"{'a' * 300}.png"):
        assert code_of(folders, change(name, "new", None)) == "file.absent"
    assert code_of(folders, *[change("2.jpg", "new", "a fox,\nin snow\n")] * 2) == "dataset.caption"
    (folder / "2.txt").write_bytes(b"x" * (MAX_CAPTION_BYTES + 1))
    assert code_of(folders, change("2.jpg", "new", "x")) == "dataset.caption"


def test_a_picture_is_opened_but_no_folder_pipe_or_other_file(folders: list[Path]) -> None:
    folder = folders[0] / "fox"
    with os.fdopen(open_picture("fox", "2.jpg", folders), "rb") as file:
        assert file.read() == b"2.jpg"
    (folder / "album.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    codes = []
    for name in ("album.png", "pipe.png", "2.txt", "../../secret.png"):
        with pytest.raises(VocableError) as caught:
            open_picture("fox", name, folders)
        codes.append(caught.value.code)
    assert codes == ["file.kind", "file.kind", "file.absent", "file.absent"]


async def test_a_client_reads_edits_and_fetches(running: Running) -> None:
    client = running.client
    first = (await client.dataset("faces")).files[0]
    reply = await client.change_captions("faces", [change(first.name, "a \x1b face", first.text)])
    assert (await client.dataset("faces")).files[0].text == "a \x1b face"
    await client.change_captions("faces", reply.undo)
    assert (await client.dataset("faces")).files[0].text == first.text
    assert len(await client.read_picture("faces", first.name)) == first.size
    async with open_http(running) as http:
        response = await http.get(f"/v1/datasets/faces/files/{first.name}")
    assert response.headers["content-type"] == "image/png"


async def test_a_template_is_shown_with_its_prompts(running: Running) -> None:
    (running.workspace.templates / "own.txt").write_text("# mine\na [name]\n[filewords] by [name]\n")
    template = await running.client.template("own")
    assert (template.lines, template.shipped) == (["a [name]", "[filewords] by [name]"], False)
    for name in ("nothing", "../own", ".own", "a" * 300):
        with pytest.raises(VocableError) as caught:
            await running.client.template(name)
        assert caught.value.code in ("template.unknown", "request.unknown")
