"""The files of a run, as clients see them; nothing outside the run's folder can be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.runfiles import list_files, open_file
from engine.errors import VocableError
from tests.daemon.conftest import Running, open_http


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder, and a secret beside it."""
    folder = tmp_path / "run"
    files = ("images/fox-100.png", "images/fox-50.png", "embeddings/fox-50.pt", "log.txt", "checkpoints/000050/state")
    for number, name in enumerate(files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        os.utime(path, (1000 - number, 1000 - number))
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def read(folder: Path, name: str) -> bytes:
    with os.fdopen(open_file(folder, name), "rb") as file:
        return file.read()


def code_of(folder: Path, name: str) -> str:
    with pytest.raises(VocableError) as caught:
        open_file(folder, name)
    return caught.value.code


def test_files_are_listed_oldest_first_and_each_can_be_opened(folder: Path) -> None:
    files = list_files(folder)
    assert [(file.kind, file.name, file.modified_at) for file in files] == [
        ("log", "log.txt", 997.0),
        ("copy", "embeddings/fox-50.pt", 998.0),
        ("preview", "images/fox-50.png", 999.0),
        ("preview", "images/fox-100.png", 1000.0),
    ]
    for file in files:
        assert (read(folder, file.name), file.path) == (file.name.encode(), str(folder / file.name))
        assert file.size == len(file.name)


def test_a_run_that_has_not_begun_has_no_files(tmp_path: Path) -> None:
    assert list_files(tmp_path / "none") == []
    assert code_of(tmp_path / "none", "log.txt") == "file.absent"


WAYS_OUT = (
    *("../secret.txt", "images/../../secret.txt", "images/..", "/etc/passwd", "..", ".", "", "images/", "images//x"),
    *("images/./fox-50.png", "checkpoints/000050/state", "images\0", "images/.hidden", "log.txt/x", "secret.txt"),
)


@pytest.mark.parametrize("name", WAYS_OUT)
def test_no_name_leads_out_of_the_folder_or_to_what_is_not_shown(folder: Path, name: str) -> None:
    assert code_of(folder, name) == "file.absent"


def test_no_link_is_listed_or_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "images" / "link.png").symlink_to(tmp_path / "secret.txt")
    (folder / "image_embeddings").symlink_to(tmp_path)
    assert [file.name for file in list_files(folder) if "link" in file.name or file.kind == "carrier"] == []
    assert code_of(folder, "images/link.png") == "file.unreadable"
    assert code_of(folder, "image_embeddings/secret.txt") == "file.absent"


def test_a_pipe_or_folder_is_no_file_and_blocks_nothing(folder: Path) -> None:
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "folder.png").mkdir()
    assert len(list_files(folder)) == 4
    assert code_of(folder, "images/pipe.png") == "file.kind"
    assert code_of(folder, "images/folder.png") == "file.kind"


def test_a_name_that_could_steer_a_terminal_is_not_listed(folder: Path) -> None:
    (folder / "images" / "a\x1b[31m.png").write_bytes(b"")
    assert len(list_files(folder)) == 4


async def test_a_client_lists_and_fetches_files_of_any_size(running: Running) -> None:
    run = await running.train()
    folder = Path((await (await running.crew.worker()).told("train", run=run.id))["folder"])
    (folder / "images").mkdir()
    large = os.urandom(3_000_000)
    (folder / "images" / "a b%2F#.png").write_bytes(large)
    (folder / "textual_inversion_loss.csv").write_bytes(b"")
    names = {file.name: file.kind for file in await running.client.run_files("word")}
    assert names == {"images/a b%2F#.png": "preview", "textual_inversion_loss.csv": "losses"}
    assert await running.client.read_run_file(run.id, "images/a b%2F#.png") == large
    assert await running.client.read_run_file(run.id, "textual_inversion_loss.csv") == b""
    with pytest.raises(VocableError, match="no file 'images/none"):
        await running.client.read_run_file(run.id, "images/none.png")
    with pytest.raises(VocableError, match="no run"):
        await running.client.run_files("none")


async def test_a_file_comes_with_its_type_and_no_path_leaves_the_folder(running: Running) -> None:
    run = await running.train()
    folder = Path((await (await running.crew.worker()).told("train", run=run.id))["folder"])
    (folder / "log.txt").write_text("begun")
    async with open_http(running) as http:
        response = await http.get(f"/v1/runs/{run.id}/files/log.txt")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert (response.text, response.headers["content-length"]) == ("begun", "5")
        for way in ("%2e%2e/%2e%2e/x", "images/%2e%2e/%2e%2e/x", "/etc/passwd", "%2Fetc%2Fpasswd", "images%00"):
            refused = await http.get(f"/v1/runs/{run.id}/files/{way}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "file.absent")
