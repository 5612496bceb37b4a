"""`--host` over a real sshd on the loopback, and over a stand-in for ssh where a real one cannot fail as wanted."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import VocableError
from tests.tui.cli.conftest import PICTURES, QUICK
from tui.cli.dial import Tunnel

SSHD = shutil.which("sshd") or (path if os.path.exists(path := "/usr/sbin/sshd") else None)
with_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="OpenSSH's server or client is not installed"
)
VOCABLE = f"{shlex.quote(sys.executable)} -m tui"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="vt-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def remote(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The workspace on the other side; its service is ended, and no line may be left behind."""
    monkeypatch.setenv("VOCABLE_REMOTE_COMMAND", VOCABLE)
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr(tempfile, "tempdir", None)
    workspace = short / "remote"
    yield workspace
    subprocess.run([sys.executable, "-m", "tui", "--workspace", str(workspace), "daemon", "stop"], check=True)
    assert [path.name for path in short.glob("vocable-*")] == []


def vocable(*arguments: str, code: int = 0) -> tuple[str, str]:
    """The command line as a program of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tui", *arguments], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def box(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An sshd of the test's own, with its own keys, that `ssh` finds under the name `box`."""
    assert SSHD is not None
    keys = short / "ssh"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
    shutil.copy(keys / "user.pub", keys / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = "HF_HUB_OFFLINE=1 PYTHONPATH=" + shlex.quote(str(Path(__file__).parents[3]))
    (keys / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\n"
        f"PidFile {keys}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin yes\nSetEnv {environment}\n"
    )
    known = (keys / "host.pub").read_text().rsplit(" ", 1)[0]
    (keys / "known").write_text(f"[127.0.0.1]:{port} {known}\n")
    (keys / "config").write_text(
        f"Host box\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {keys}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {keys}/known\n GlobalKnownHostsFile /dev/null\n"
        " StrictHostKeyChecking yes\n"
    )
    bin_ = short / "bin"
    bin_.mkdir()
    (bin_ / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {keys}/config "$@"\n')
    (bin_ / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself up before a login
    server = subprocess.Popen([SSHD, "-D", "-E", str(keys / "log"), "-f", str(keys / "sshd_config")])
    try:
        wait_for_port(port, server)
        yield "box"
    finally:
        server.terminate()
        server.wait()


def wait_for_port(port: int, server: subprocess.Popen[Any]) -> None:
    for _ in range(500):
        assert server.poll() is None, "sshd ended"
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise AssertionError("sshd does not listen")


@with_sshd
def test_a_real_sshd_leads_to_the_service_of_the_other_workspace(box: str, remote: Path) -> None:
    here = ("--host", box, "--workspace", str(remote))
    _, said = vocable(*here, "daemon", "status", code=1)
    assert f"No service runs for {remote}." in said
    vocable(*here, "runs")
    status, _ = vocable(*here, "daemon", "status", "--json")
    assert json.loads(status)["workspace"] == str(remote)
    assert " ready on " in vocable(*here, "daemon", "logs")[0]
    assert processes_with(str(remote), "ssh") == []


@pytest.mark.slow
@with_sshd
def test_a_run_is_followed_over_a_real_sshd_and_its_word_is_there(box: str, remote: Path) -> None:
    here = ("--host", box, "--workspace", str(remote))
    _, said = vocable(*here, "train", "--name", "far", "--images", PICTURES, *QUICK, "--steps", "2")
    assert "far finished after 2 of 2 steps" in said
    assert f"vocable {shlex.join(here)} generate" in said
    assert (remote / "embeddings" / "far.safetensors").is_file()


@with_sshd
def test_a_host_key_that_changed_is_told_in_ssh_s_own_words(box: str, remote: Path, short: Path) -> None:
    known = short / "ssh" / "known"
    other = (short / "ssh" / "user.pub").read_text().split()[1]
    known.write_text(f"{known.read_text().split()[0]} ssh-ed25519 {other}\n")
    _, said = vocable("--host", box, "--workspace", str(remote), "runs", code=1)
    assert "error: ssh to box failed: " in said
    assert "Host key verification failed." in said


def processes_with(text: str, program: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name == program and any(text in word for word in words):
                found.append(" ".join(words))
    return found


@pytest.fixture
def fake_ssh(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ssh` that runs what it is told on this machine."""
    bin_ = short / "bin"
    bin_.mkdir()
    script = bin_ / "ssh"
    write_ssh(script, 'while [ "$1" != -- ]; do shift; done; shift 2; exec sh -c "$1"')
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    return script


def write_ssh(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_service_that_does_not_run_is_started_over_there(fake_ssh: Path, remote: Path) -> None:
    out, said = vocable("--host", "box", "--workspace", str(remote), "runs")
    assert out == ""
    assert f"vocable --host box --workspace {remote} train" in said
    assert (remote / "state" / "vocable.sock").exists()


def test_looking_at_a_service_that_does_not_run_starts_none_over_there(fake_ssh: Path, remote: Path) -> None:
    here = ("--host", "box", "--workspace", str(remote))
    out, _ = vocable(*here, "daemon", "status", "--json", code=1)
    assert json.loads(out)["running"] is False
    assert f"No service runs for {remote}." in vocable(*here, "daemon", "stop")[1]
    assert "There is no log" in vocable(*here, "daemon", "logs", "--worker", code=1)[1]
    assert "not running; it starts with the first command" in vocable(*here, "doctor")[0]
    assert not remote.exists()


def test_a_service_over_there_is_started_told_of_and_stopped(fake_ssh: Path, remote: Path) -> None:
    here = ("--host", "box", "--workspace", str(remote))
    assert json.loads(vocable(*here, "daemon", "start", "--json")[0])["workspace"] == str(remote)
    assert len(vocable(*here, "daemon", "logs", "--lines", "1")[0].splitlines()) == 1
    assert json.loads(vocable(*here, "daemon", "stop", "--json")[0])["stopped"] is True
    vocable(*here, "daemon", "status", code=1)


def test_a_command_that_cannot_be_run_over_there_says_why(fake_ssh: Path) -> None:
    write_ssh(fake_ssh, "echo 'ssh: connect to host box port 22: Connection refused' >&2; exit 255")
    assert "error: ssh to box failed: ssh: connect to host box" in vocable("--host", "box", "doctor", code=1)[1]
    write_ssh(fake_ssh, "printf 'bad \\033]0;x\\007 words\\n' >&2; exit 2")
    assert vocable("--host", "box", "daemon", "stop", code=2)[1] == "bad \\x1b]0;x\\x07 words\n"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("echo 'ssh: connect to host box port 22: Connection refused' >&2; exit 255", "Connection refused."),
        ("printf 'bad \\033]52;c;x\\007 banner\\n' >&2; exit 255", r"bad \x1b]52;c;x\x07 banner."),
        ("echo 'sh: 1: vocable: not found' >&2; exit 127", "There is no vocable to call on box"),
        ("echo 'error: The disk is full.' >&2; exit 1", "On box: The disk is full."),
        ("echo hello; exit 0", "On box: it ended with 0 and without an answer."),
    ],
)
def test_what_goes_wrong_on_the_way_is_a_sentence(
    fake_ssh: Path, short: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    write_ssh(fake_ssh, body)
    _, said = vocable("--host", "box", "runs", code=1)
    assert told in said
    assert list(short.glob("vocable-*")) == []


def test_no_ssh_and_no_host_are_told(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("-oProxyCommand=touch /tmp/x", "", "a b"):
        with pytest.raises(VocableError) as caught:
            Tunnel(host, "")
        assert caught.value.code == "usage.host"
    monkeypatch.setenv("PATH", str(short))
    with pytest.raises(VocableError, match="There is no ssh on this machine"):
        Tunnel("box", "")


def test_paths_that_mean_nothing_over_there_are_refused(fake_ssh: Path, remote: Path) -> None:
    here = ("--host", "box", "--workspace", str(remote))
    for command in (
        ("train", "--images", "./pictures", "--name", "x"),
        ("generate", "a face", "-o", "face.png"),
        ("generate", "a face"),
        ("inspect", "face.pt"),
        ("demo",),
    ):
        _, said = vocable(*here, *command, code=2)
        assert "box" in said or "another machine" in said, command


def test_a_killed_program_leaves_no_connection(fake_ssh: Path, remote: Path) -> None:
    """Its connections are the input of each ssh, so they end with it; the next program clears nothing away."""
    process = subprocess.Popen(
        [sys.executable, "-c", KEEP_OPEN, str(remote)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        folder = Path(process.stdout.readline().strip()).parent
        assert dialling(remote)
        process.kill()
        process.wait()
    for _ in range(500):
        if not dialling(remote):
            break
        time.sleep(0.02)
    assert dialling(remote) == []
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_program_that_is_ended_removes_its_line(fake_ssh: Path, remote: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT, str(remote)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        line = Path(process.stdout.readline().strip())
        assert line.exists()
        process.send_signal(number)
        assert process.wait(30) in (128 + number, -number)
    assert not line.parent.exists()


def dialling(remote: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if "dial-stdio" in words and str(remote) in words:
                found.append(" ".join(words))
    return found


WAIT = """
import asyncio, os, sys
from pathlib import Path
from tui.cli.dial import open_tunnel
open_tunnel("box", Path(sys.argv[1]))
print(os.environ["VOCABLE_SOCKET"], flush=True)
asyncio.run(asyncio.sleep(600))
"""

KEEP_OPEN = """
import socket, sys, time
from tui.cli.dial import Tunnel
tunnel = Tunnel("box", sys.argv[1])
tunnel.open()
line = socket.socket(socket.AF_UNIX)
line.connect(str(tunnel.socket))
line.sendall(b"GET /v1/events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
line.recv(100)
print(tunnel.socket, flush=True)
time.sleep(600)
"""
