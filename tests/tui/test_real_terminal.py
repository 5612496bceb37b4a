"""The program as users run it: a process of its own in a real terminal, before a service in another process."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.client import socket_for
from daemon.paths import Workspace
from tests.tui.test_pictures import write_preview

TIMEOUT_S = 30.0
ROOT = Path(__file__).parents[2]

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


@pytest.fixture
def service(workspace: Workspace) -> Iterator[subprocess.Popen[bytes]]:
    """A fake service in a process of its own, with one run at work and some others."""
    socket, preview = socket_for(workspace), write_preview(workspace.root / "cat.png")
    command = [sys.executable, "-m", "tests.tui.fake_daemon", str(socket), "--preview", str(preview)]
    process = subprocess.Popen(command, cwd=ROOT)
    wait_for(socket.exists)
    yield process
    process.kill()
    process.wait()


@dataclass(frozen=True)
class Tmux:
    """One tmux server with one window."""

    socket: Path

    def run(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self.socket), "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout

    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def see(self, *texts: str) -> str:
        wait_for(lambda: all(text in self.screen() for text in texts), lambda: f"{texts} in\n{self.screen()}")
        return self.screen()

    def flag(self, name: str) -> str:
        return self.run("display-message", "-p", f"#{{{name}}}").strip()


@pytest.fixture
def tmux(workspace: Workspace) -> Iterator[Tmux]:
    """The program in an 80x24 window; the shell's `code=N` follows when it ends."""
    tmux = Tmux(workspace.root / "tmux")
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX", "TEXTUAL_THEME")}
    program = f"{sys.executable} -m tui --workspace {workspace.root}"
    command = ["new-session", "-d", "-x", "80", "-y", "24", f"cd {ROOT}; {program}; echo code=$?; exec cat"]
    subprocess.run(["tmux", "-S", str(tmux.socket), "-f", "/dev/null", *command], env=environ, check=True)
    tmux.run("set", "-g", "window-size", "manual")
    yield tmux
    subprocess.run(["tmux", "-S", str(tmux.socket), "kill-server"], check=False, capture_output=True)


@needs_tmux
def test_a_session_at_the_keyboard(workspace: Workspace, service: subprocess.Popen[bytes], tmux: Tmux) -> None:
    tmux.see("connected", "sunny-girl", "▀▀▀▀▀▀▀▀", "seed 42", "loss 0.1184", "━━━━")
    tmux.press("p")
    tmux.see("‖ paused      sunny-girl", "p Resume")
    tmux.press("s")
    tmux.see("Stop sunny-girl at step 240 of 500?")
    tmux.press("y")
    tmux.see("■ stopped     sunny-girl")
    tmux.run("resize-window", "-x", "140", "-y", "45")
    tmux.see("worker busy on cpu", "│ ■ stopped  sunny-girl")
    tmux.run("resize-window", "-x", "50", "-y", "24")
    tmux.see("needs 60x16, have 50x24")
    tmux.run("resize-window", "-x", "80", "-y", "24")
    tmux.see("connected", "q Quit")
    wait_for(lambda: make_noise(tmux), tmux.screen)
    tmux.press("C-l")
    wait_for(lambda: "NOISE" not in tmux.screen(), tmux.screen)
    tmux.see("connected", "■ stopped     sunny-girl")
    service.kill()
    service.wait()
    tmux.see("lost", "as of", "The daemon is not running. S starts it.")
    tmux.press("q")
    screen = tmux.see("code=0")
    assert "The service was not connected. Its log:" in screen
    assert_clean(tmux)


@needs_tmux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_clean_terminal(
    workspace: Workspace, service: subprocess.Popen[bytes], tmux: Tmux, number: signal.Signals
) -> None:
    tmux.see("connected", "sunny-girl")
    (pid,) = children_of(int(tmux.flag("pane_pid")))
    os.kill(pid, number)
    tmux.see(f"code={128 + number}", "2 runs go on in the daemon.")
    assert_clean(tmux)


@needs_tmux
def test_a_terminal_that_goes_away_takes_the_program_with_it(
    workspace: Workspace, service: subprocess.Popen[bytes], tmux: Tmux
) -> None:
    tmux.see("connected")
    (pid,) = children_of(int(tmux.flag("pane_pid")))
    tmux.run("kill-server")
    wait_for(lambda: not is_alive(pid))


@pytest.mark.chaos
def test_a_signal_at_any_moment_of_the_start_ends_the_program_without_a_fault(
    workspace: Workspace, service: subprocess.Popen[bytes]
) -> None:
    draw = random.Random(1)
    for _ in range(40):
        with PtyProgram(workspace) as program:
            program.read_until(b"\x1b[c")
            os.write(program.fd, b"\x1b[?62;22c")
            program.read_until(b"sunny-girl")
            program.read_for(draw.uniform(0, 0.15))
            program.process.terminate()
            program.read_until(b"in the daemon.")
            assert program.process.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    assert not (workspace.state / "screen.log").exists()


@pytest.mark.parametrize(
    ("answer", "picture"),
    [
        (b"\x1b_Gi=31;OK\x1b\\\x1b[6;20;10t\x1b[?62;22c", b"\x1b_G"),
        (b"\x1b[6;20;10t\x1b[?62;4;22c", b"\x1bP"),
        (b"\x1b[?1;2c", "▀".encode()),
    ],
    ids=["kitty", "sixel", "neither"],
)
def test_late_answers_choose_the_picture_and_an_idle_screen_sends_nothing(
    workspace: Workspace, service: subprocess.Popen[bytes], answer: bytes, picture: bytes
) -> None:
    """A terminal 300 ms away: what it answers never reaches the screen as keys."""
    with PtyProgram(workspace) as program:
        program.read_until(b"\x1b[c")
        time.sleep(0.3)
        os.write(program.fd, answer)
        shown = program.read_until(b"seed 42")
        shown += program.read_quiet(1.0)
        assert picture in shown
        assert b"/500" in shown
        assert program.read_for(3.0) == b""
        os.write(program.fd, b"q")
        ended = program.read_until(b"in the daemon.")
        assert b"\x1b[?1049l" in ended


def test_a_window_that_grew_without_a_signal_is_noticed(workspace: Workspace, service: subprocess.Popen[bytes]) -> None:
    # This terminal controls no process group, so the kernel tells nobody of its new size.
    with PtyProgram(workspace) as program:
        program.read_until(b"seed 42")
        program.read_quiet(0.5)
        fcntl.ioctl(program.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 140, 0, 0))
        program.read_until(b"worker busy on cpu")  # has its place on wide screens only


class PtyProgram:
    """The program on a pseudo terminal that says it is no tmux."""

    def __init__(self, workspace: Workspace) -> None:
        drop = {"TMUX", "STY", "NO_COLOR", "SSH_CONNECTION", "TERM_PROGRAM", "TEXTUAL_THEME"}
        environ = {name: value for name, value in os.environ.items() if name not in drop}
        environ |= {"TERM": "xterm-256color", "XDG_CACHE_HOME": str(workspace.root / "cache")}
        self.fd, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "tui", "--workspace", str(workspace.root)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
        )
        os.close(inside)

    def __enter__(self) -> PtyProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def read_for(self, seconds: float) -> bytes:
        """Everything that comes within some seconds."""
        deadline, received = time.monotonic() + seconds, b""
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                received += os.read(self.fd, 65536)
        return received

    def read_quiet(self, seconds: float) -> bytes:
        """Read until nothing came for some seconds."""
        deadline, received = time.monotonic() + TIMEOUT_S, b""
        while more := self.read_for(seconds):
            assert time.monotonic() < deadline, "the screen never comes to rest"
            received += more
        return received

    def read_until(self, text: bytes) -> bytes:
        deadline, received = time.monotonic() + TIMEOUT_S, b""
        while text not in received:
            assert time.monotonic() < deadline, received[-2000:]
            received += self.read_for(0.05)
        return received


def make_noise(tmux: Tmux) -> bool:
    """Spoil the screen, as another program would; False when the program has just drawn over it."""
    Path(tmux.flag("pane_tty")).write_text("\x1b[5;5HNOISE ON THE LINE")
    return "NOISE" in tmux.screen()


def assert_clean(tmux: Tmux) -> None:
    """The shell has its screen, its cursor and its mouse back."""
    assert tmux.flag("alternate_on") == "0"
    assert tmux.flag("mouse_any_flag") == "0"
    assert tmux.flag("cursor_flag") == "1"
    tmux.press("h", "e", "l", "l", "o", "Enter")
    assert tmux.see("hello").count("hello") >= 1


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: Callable[[], bool], what: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what()}"
        time.sleep(0.05)
