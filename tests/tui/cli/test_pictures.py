"""Pictures in the terminal: as the terminal can, or not at all."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from engine.models.starter.sample import TRAIN_DIR
from tui.cli.pictures import show_pictures

PICTURE = TRAIN_DIR / "0000.png"


def shown_in_terminal(tmp_path: Path, **environment: str) -> str:
    """What a program on a terminal of its own writes when it shows the picture."""
    code = (
        f"from pathlib import Path\nfrom tui.cli.pictures import show_pictures\nshow_pictures([Path({str(PICTURE)!r})])"
    )
    own, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "TMUX": "yes", "XDG_CACHE_HOME": str(tmp_path), **environment},
    )
    os.close(terminal)
    written = b""
    try:
        while chunk := os.read(own, 65536):
            written += chunk
    except OSError:
        pass  # Linux says EIO when the other side is closed.
    os.close(own)
    assert process.communicate()[1] == b""
    assert process.returncode == 0
    return written.decode()


def test_a_pipe_gets_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    show_pictures([PICTURE])
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_half_blocks(tmp_path: Path) -> None:
    assert shown_in_terminal(tmp_path).count("▀") > 500


def test_a_terminal_without_colours_gets_characters(tmp_path: Path) -> None:
    shown = shown_in_terminal(tmp_path, NO_COLOR="1")
    assert "@@" in shown
    assert "\x1b" not in shown


def test_a_dumb_terminal_gets_no_picture(tmp_path: Path) -> None:
    assert shown_in_terminal(tmp_path, TERM="dumb") == ""
