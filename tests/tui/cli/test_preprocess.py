"""`vocable preprocess` on a real service, and how its arguments become a request."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from engine.errors import VocableError
from engine.models.starter.portraits import write_pictures
from tests.tui.cli.conftest import Vocable
from tui.cli import output
from tui.cli.preparing import build_job
from tui.cli.session import Session

SMALL = ("--width", "64", "--height", "64")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", 3, seed=4)
    return tmp_path / "photos"


def test_a_folder_becomes_a_dataset(vocable: Vocable, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "clip.mp4").touch()
    out, talk = vocable("preprocess", str(photos), "first", *SMALL, "--flip", "--caption", "starter")
    ready = vocable.root / "datasets" / "first"
    assert out == f"{ready}\n"
    assert len(list(ready.glob("*.png"))) == len(list(ready.glob("*.txt"))) == 6
    assert "broken.png: The picture 'broken.png' is not a picture of a known format." in talk
    assert "no pictures by their ending: clip.mp4" in talk
    assert "Of 4 pictures: 3 made, 1 failed; 6 prepared." in talk


def test_a_second_call_does_nothing_and_json_tells_it(vocable: Vocable, photos: Path) -> None:
    vocable("preprocess", str(photos), "second", *SMALL)
    result = vocable.json("preprocess", str(photos), "second", *SMALL)
    assert (result["made"], result["unchanged"], result["failed"]) == (0, 3, 0)


def test_a_dry_run_lists_what_would_happen(vocable: Vocable, photos: Path) -> None:
    out, talk = vocable("preprocess", str(photos), "third", *SMALL, "--dry-run")
    assert out.splitlines()[0] == "0000.png -> 00000-0-0000.png (resize, 64x64)"
    assert "Nothing was written." in talk
    assert not (vocable.root / "datasets" / "third").exists()


def test_failures_are_told_first_and_what_is_told_of_many_once(vocable: Vocable, photos: Path) -> None:
    (photos / "zebra.png").write_bytes(b"no picture")
    large = ("--width", "128", "--height", "128", "--duplicates", "off", "--set", "checks.blur=0")
    enlarged = "0000.png and 2 more: It has 64 x 64 pixels and is enlarged 2 times."
    foreseen = vocable("preprocess", str(photos), "grouped", *large, "--dry-run")[1].splitlines()
    assert enlarged in foreseen
    talk = vocable("preprocess", str(photos), "grouped", *large)[1].splitlines()
    failed = "zebra.png: The picture 'zebra.png' is not a picture of a known format."
    assert talk.index(enlarged) == talk.index(failed) + 1


def test_paths_start_where_the_caller_is(vocable: Vocable, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    out, _ = vocable("preprocess", "photos", "./here", *SMALL)
    assert out == f"{photos.parent / 'here'}\n"


def test_a_folder_in_which_every_picture_fails_counts_as_failed(vocable: Vocable, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    _, talk = vocable("preprocess", str(tmp_path), "broken", *SMALL, code=output.FAILED)
    assert "Of 1 picture: 1 failed; 0 prepared." in talk


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("/nowhere",), "There is no folder '/nowhere'."),
        (("PHOTOS", "PHOTOS"), "The prepared pictures would go into the folder that they are made from"),
        (("PHOTOS", "--caption", "blip"), "There is no BLIP model in"),
        (("PHOTOS", "--width", "70"), "width: input should be a multiple of 8."),
        (("PHOTOS", "--set", "split.enabeld=true"), "split.enabeld: is not known; did you mean split.enabled?\nhint"),
        (("PHOTOS", "--set", "width=wide"), "width: input should be a valid integer."),
        (("PHOTOS", "--set", "background=red"), "background: 'red' is no colour like #ffffff."),
        (("PHOTOS", "--set", "captions.blip=3"), "captions.blip: is a group of options, not one."),
        (("PHOTOS", "--set", "split"), "split: is not of the form group.key=value."),
        (("PHOTOS", "--set", "auto_size={min_dim=768, max_dim=384}"), "min_dim 768 is greater than max_dim 384."),
        ((), "There is nothing to prepare."),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    vocable: Vocable, photos: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    given = [text.replace("PHOTOS", str(photos)) for text in arguments]
    out, talk = vocable("preprocess", *given, code=output.MISUSED)
    assert out == ""
    assert sentence in talk
    assert "\nhint: " in talk


def test_ctrl_c_cancels_and_what_was_done_stays(vocable: Vocable, photos: Path) -> None:
    write_pictures(photos, 150, seed=5)
    program = vocable.start("preprocess", str(photos), "stopped", *SMALL)
    program.wait_for("preparing: ")
    program.process.send_signal(signal.SIGINT)
    code, _, talk = program.end()
    assert code == output.INTERRUPTED
    assert "Cancelled. What was prepared stays" in talk
    result = vocable.json("preprocess", str(photos), "stopped", *SMALL)
    assert result["unchanged"] > 0
    assert result["unchanged"] + result["made"] == 150


def test_every_option_is_listed_with_its_default(vocable: Vocable) -> None:
    listed = {item["option"]: item["default"] for item in vocable.json("preprocess", "--options")}
    assert listed["split.overlap"] == 0.2
    assert listed["captions.blip.beams"] == 1
    assert "focal_crop.face_weight" in vocable("preprocess", "--options")[0]


# How arguments become a request


def build(root: Path, source: str, destination: str | None = None, host: str = "", **flags: Any) -> tuple[str, str]:
    job = build_job(Session(root, host), source, destination, flags, [], dry_run=False)
    return job.source, job.destination


def test_without_a_destination_the_dataset_is_named_like_the_source(tmp_path: Path, photos: Path) -> None:
    assert build(tmp_path, str(photos)) == (str(photos), "photos")


def test_a_dataset_gets_a_neighbour_not_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets" / "raw").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert build(tmp_path, "raw") == ("raw", "raw-prepared")
    assert build(tmp_path, "../datasets/raw")[1] == "raw-prepared"


def test_with_a_host_only_names_and_whole_paths_are_taken(tmp_path: Path, photos: Path) -> None:
    assert build(tmp_path, "photos", "/data/out", host="box") == ("photos", "/data/out")
    with pytest.raises(VocableError, match=r"'./photos' is not a whole path, and with --host it is one on box"):
        build(tmp_path, "./photos", host="box")


def test_assignments_go_before_flags(tmp_path: Path, photos: Path) -> None:
    job = build_job(
        Session(tmp_path), str(photos), None, {"width": 64}, ["width=128", "split.overlap=0.5"], dry_run=True
    )
    assert (job.options.width, job.options.split.overlap, job.dry_run) == (128, 0.5, True)
