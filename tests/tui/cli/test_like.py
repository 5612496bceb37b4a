"""Pictures like a picture: what one says of itself makes it again, through service, inspector and worker."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.tui.cli.conftest import Vocable

SETTINGS = {
    "--negative": "ugly, [blue:green:0.5]",
    "--sampler": "DPM++ 2M Karras",
    "--steps": "4",
    "--cfg": "3.3",
    "--seed": "77",
    "--size": "64x72",
    "--emphasis": "No norm",
    "--clip-skip": "2",
    "--compat": "webui",
}
PROMPT = "a (girl:1.4), [pink|blue] background AND\nsmiling :0.3"


def pixels(path: Path) -> tuple[tuple[int, int], bytes]:
    with Image.open(path) as image:
        return image.size, image.tobytes()


@pytest.fixture(scope="module")
def original(shared_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tui.cli.app import run_command_line

    path = tmp_path_factory.mktemp("pictures") / "original.png"
    options = [text for pair in SETTINGS.items() for text in pair]
    line = ["--workspace", str(shared_workspace), "generate", PROMPT, "-o", str(path), *options]
    assert run_command_line(line) == 0
    return path


def test_a_picture_makes_itself_again_to_the_last_pixel(vocable: Vocable, original: Path, tmp_path: Path) -> None:
    made = vocable.json("generate", "--like", str(original), "-o", str(tmp_path / "again.png"))
    assert made == {"pictures": [str(tmp_path / "again.png")], "prompt": PROMPT, "seed": 77, "warnings": []}
    assert pixels(tmp_path / "again.png") == pixels(original)


def test_options_go_before_what_the_picture_says(vocable: Vocable, original: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    vocable("generate", "a boy", "--like", str(original), "--seed", "5", "--size", "64x64", "-o", str(other))
    with Image.open(other) as image:
        assert image.size == (64, 64)
        text = image.info["parameters"]
    assert text.startswith("a boy\nNegative prompt: ugly, [blue:green:0.5]\nSteps: 4, ")
    assert "Seed: 5, " in text
    assert "Clip skip: 2, " in text


def test_a_picture_of_another_program_is_made_with_a_word_on_what_differs(vocable: Vocable, tmp_path: Path) -> None:
    exif = Image.Exif()
    text = "a girl\nSteps: 2, Sampler: DPM++ SDE, CFG scale: 2, Seed: 3, Size: 64x64, Model: v1-5, Hires upscale: 2"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    (tmp_path / "foreign.jpg").write_bytes(buffer.getvalue())
    out, err = vocable("generate", "--like", str(tmp_path / "foreign.jpg"), "-o", str(tmp_path / "mine.png"))
    assert out == f"{tmp_path / 'mine.png'}\n"
    told = [line for line in err.splitlines() if line.startswith("warning: ")]
    for what in ("DPM++ SDE", "not drawn on a CPU", "Hires upscale: 2", "v1-5"):
        assert any(what in line for line in told), what


def test_a_picture_that_says_nothing_is_refused(vocable: Vocable, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "mute.png")
    _, err = vocable("generate", "--like", str(tmp_path / "mute.png"), "-o", str(tmp_path / "x.png"), code=2)
    assert err.startswith("error: ")
    assert not (tmp_path / "x.png").exists()


def test_what_a_prompt_asks_for_in_vain_is_told_on_stderr(vocable: Vocable, tmp_path: Path) -> None:
    line = ("generate", "a girl, <embedding:nobody>", "--steps", "1", "-o", str(tmp_path / "x.png"))
    out, err = vocable(*line)
    assert out == f"{tmp_path / 'x.png'}\n"
    assert "warning: There is no word 'nobody'" in err
    assert "nobody" in vocable.json(*line)["warnings"][0]
