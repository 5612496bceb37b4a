from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.errors import VocableError
from tui.pictures import MAX_EDGE_PX, draw_ascii, load_picture, load_widget, read_parameters
from tui.terminal import Terminal

PARAMETERS = "a cat,\nsitting\nNegative prompt: dog, Seed: 9\nSteps: 20, Sampler: Euler a, Seed: 42, Size: 64x64"


def write_preview(path: Path, parameters: str = PARAMETERS, size: tuple[int, int] = (64, 64)) -> Path:
    """A preview as training writes them: a PNG whose left half is dark."""
    image = Image.new("RGB", size, "white")
    image.paste((10, 20, 60), (0, 0, size[0] // 2, size[1]))
    info = PngInfo()
    info.add_text("parameters", parameters)
    image.save(path, pnginfo=info)
    return path


def test_a_preview_brings_its_prompt_and_seed(tmp_path: Path) -> None:
    picture = load_picture(write_preview(tmp_path / "p.png"))
    assert (picture.prompt, picture.seed) == ("a cat, sitting", "42")
    assert picture.image.size == (64, 64)


def test_a_large_picture_is_made_smaller_and_keeps_its_shape(tmp_path: Path) -> None:
    picture = load_picture(write_preview(tmp_path / "p.png", size=(2048, 1024)))
    assert picture.image.size == (MAX_EDGE_PX, MAX_EDGE_PX // 2)


def test_text_in_a_picture_is_escaped(tmp_path: Path) -> None:
    picture = load_picture(write_preview(tmp_path / "p.png", "\x1b]0;gotcha\x07 [red]cat\u202e\nSteps: 1, Seed: 1"))
    assert picture.prompt == "\\x1b]0;gotcha\\x07 [red]cat\\u202e"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_said_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad\x1b.png"
    path.write_bytes(content)
    with pytest.raises(VocableError) as caught:
        load_picture(path)
    assert caught.value.code == "picture.unreadable"
    assert "bad\\x1b.png" in caught.value.title


def test_a_missing_or_cut_picture_is_said_in_a_sentence(tmp_path: Path) -> None:
    whole = write_preview(tmp_path / "p.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name in ("absent.png", "cut.png"):
        with pytest.raises(VocableError, match="cannot be shown"):
            load_picture(tmp_path / name)


def test_parameters_without_prompt_or_seed_are_read_as_far_as_they_go() -> None:
    assert read_parameters("") == ("", "")
    assert read_parameters("a cat") == ("a cat", "")
    assert read_parameters("Steps: 20, Seed: 3") == ("", "3")


def test_plain_characters_show_dark_and_light_and_fit() -> None:
    image = Image.new("L", (100, 100), 255)
    image.paste(0, (0, 0, 50, 100))
    lines = draw_ascii(image, 40, 10, on_dark=True).splitlines()
    assert len(lines) == 10
    assert all(line == " " * 10 + "@" * 10 for line in lines)
    on_light = draw_ascii(image, 8, 40, on_dark=False).splitlines()
    assert all(line == "@" * 4 + " " * 4 for line in on_light)
    assert len(on_light) == 4


def test_the_library_s_cell_size_is_ours() -> None:
    load_widget("half", Terminal("half", ("half",), cell_width=7, cell_height=15))
    from textual_image._terminal import get_cell_size

    assert tuple(get_cell_size()) == (7, 15)


def test_importing_the_library_asks_the_terminal_nothing() -> None:
    """Its queries would be answered after our screen is up, and the answers would look like typing."""
    code = (
        "from tui.pictures import load_widget; from tui.terminal import Terminal;"
        "import sys; assert sys.__stdout__.isatty();"
        "[load_widget(r, Terminal(r, (r,))) for r in ('half', 'sixel', 'kitty')];"
        "print('done')"
    )
    outside, inside = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=inside, stdout=inside, stderr=subprocess.PIPE)
    os.close(inside)
    try:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
        written = os.read(outside, 4096) if select.select([outside], [], [], 0)[0] else b""
    finally:
        os.close(outside)
    assert written.decode().split() == ["done"]
