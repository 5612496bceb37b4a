from __future__ import annotations

import os
import pty
import select
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tui.terminal import (
    Renderer,
    Replies,
    ask_terminal,
    choose_renderer,
    decide_unasked,
    examine_terminal,
    parse_replies,
)

SIXEL = b"\x1b[6;18;9t\x1b[?62;4;22c"
KITTY = b"\x1b_Gi=31;OK\x1b\\\x1b[6;20;10t\x1b[?62;22c"
PLAIN = b"\x1b[?1;2c"


@contextmanager
def terminal(reply: bytes, delay_s: float = 0.0) -> Iterator[tuple[int, list[bytes]]]:
    """A pseudo terminal that answers the last question after a delay, like one behind a long line."""
    outside, inside = pty.openpty()
    asked: list[bytes] = []

    def answer() -> None:
        received = b""
        while b"\x1b[c" not in received:
            if not select.select([outside], [], [], 5)[0]:
                return
            received += os.read(outside, 1024)
        asked.append(received)
        if reply:
            time.sleep(delay_s)
            os.write(outside, reply)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield inside, asked
    finally:
        thread.join()
        os.close(inside)
        os.close(outside)


@pytest.mark.parametrize("delay_s", [0.005, 0.3, 0.8])
@pytest.mark.parametrize(("reply", "renderer"), [(SIXEL, "sixel"), (KITTY, "kitty"), (PLAIN, "half")])
def test_the_answer_is_right_however_late_and_nothing_is_left_to_read(
    reply: bytes, renderer: Renderer, delay_s: float
) -> None:
    with terminal(reply, delay_s) as (fd, _):
        before = termios.tcgetattr(fd)
        assert choose_renderer(ask_terminal(fd, fd, timeout_s=5.0)) == renderer
        assert termios.tcgetattr(fd) == before
        assert select.select([fd], [], [], 0)[0] == []


def test_a_mute_terminal_is_waited_for_once_only(tmp_path: Path) -> None:
    environ = {"TERM": "xterm", "TERM_PROGRAM": "mute"}
    cache = tmp_path / "sub" / "terminal.json"
    with terminal(b"") as (fd, asked):
        first = examine_terminal("auto", environ, fd, fd, cache)
        again = examine_terminal("auto", environ, fd, fd, cache)
    assert first == again
    assert first.renderer == "half"
    assert len(asked) == 1
    assert [path.name for path in cache.parent.iterdir()] == ["terminal.json"]


def test_replies_are_remembered_for_one_line_only(tmp_path: Path) -> None:
    cache = tmp_path / "terminal.json"
    with terminal(SIXEL) as (fd, _):
        assert examine_terminal("auto", {"SSH_CONNECTION": "1.2.3.4 5"}, fd, fd, cache).renderer == "sixel"
    with terminal(PLAIN) as (fd, asked):
        assert examine_terminal("auto", {"SSH_CONNECTION": "1.2.3.4 6"}, fd, fd, cache).renderer == "half"
        assert len(asked) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": {"sixel": 1, "new": 2}}'])
def test_a_spoiled_memory_costs_one_question(tmp_path: Path, content: str) -> None:
    cache = tmp_path / "terminal.json"
    cache.write_text(content)
    with terminal(KITTY) as (fd, _):
        assert examine_terminal("auto", {"TERM_PROGRAM": "kitty"}, fd, fd, cache).renderer == "kitty"


@pytest.mark.parametrize(
    ("environ", "renderer"),
    [
        ({"TMUX": "/tmp/tmux-0/default"}, "half"),
        ({"STY": "1.pts"}, "half"),
        ({"NO_COLOR": ""}, "ascii"),
        ({"TERM": "linux"}, "ascii"),
        ({"TERM": "dumb"}, "off"),
        ({"TERM": "xterm-256color"}, None),
    ],
)
def test_the_environment_decides_where_it_can(environ: dict[str, str], renderer: Renderer | None) -> None:
    assert decide_unasked("auto", environ, is_tty=True) == renderer


def test_the_user_s_word_goes_before_everything() -> None:
    assert decide_unasked("kitty", {"NO_COLOR": "1", "TMUX": "x"}, is_tty=True) == "kitty"


def test_without_a_terminal_nothing_is_asked_or_drawn(tmp_path: Path) -> None:
    with open(os.devnull, "r+b") as nothing:
        found = examine_terminal("auto", {}, nothing.fileno(), nothing.fileno(), tmp_path / "cache")
    assert found.renderer == "off"


def test_switching_goes_through_what_is_possible_and_comes_back(tmp_path: Path) -> None:
    with terminal(SIXEL) as (fd, _):
        found = examine_terminal("auto", {"TERM": "xterm"}, fd, fd, tmp_path / "cache")
    seen = [found.renderer]
    while (following := found.after(seen[-1])) not in seen:
        seen.append(following)
    assert set(seen) == {"half", "sixel", "ascii", "off"}


def test_cell_sizes_are_read_height_first() -> None:
    assert parse_replies(SIXEL) == Replies(sixel=True, kitty=False, cell_width=9, cell_height=18)
    assert parse_replies(b"garbage") == Replies()
    # The first number is the kind of terminal, not a feature.
    assert not parse_replies(b"\x1b[?4;6c").sixel
