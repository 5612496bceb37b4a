"""What `--host` does: a line to the service of another machine over ssh, with no port opened, or a command run there.

The line is a socket in a private temporary folder. Each connection to it becomes one `ssh HOST vocable dial-stdio`,
which has the connection itself as its input and output; the first one logs in, the others go through it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from daemon.paths import SOCKET_ENVIRONMENT
from engine.errors import VocableError
from engine.text import escape
from tui.cli.output import INTERRUPTED, say
from tui.cli.session import Session, session_of

REMOTE_COMMAND = "VOCABLE_REMOTE_COMMAND"
"""Environment variable: what to call on the other machine instead of `vocable`, where that is not on the PATH."""

_CHUNK = 1 << 16
_PERSIST_S = 30
_END_TIMEOUT_S = 5.0
_HELLO = b"GET /v1/ HTTP/1.1\r\nHost: vocable\r\nConnection: close\r\n\r\n"


def dial_stdio(ctx: typer.Context) -> None:
    """Connect input and output to the workspace's service, which is started when none answers."""
    import asyncio

    from daemon.client import ensure_daemon, socket_for

    workspace = session_of(ctx).workspace
    try:
        line = _connect(socket_for(workspace))
    except OSError:

        async def start() -> None:
            await (await ensure_daemon(workspace)).close()

        asyncio.run(start())
        line = _connect(socket_for(workspace))
    threading.Thread(target=_send_input, args=(line,), daemon=True).start()
    while data := line.recv(_CHUNK):
        _write(1, data)


def _connect(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(path))
    except OSError:
        line.close()
        raise
    return line


def _send_input(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # a client that was killed resets its connection
        while data := os.read(0, _CHUNK):
            line.sendall(data)
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_WR)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


class Tunnel:
    """The line to one host; `close`, or the end of the program, leaves nothing of it."""

    def __init__(self, host: str, workspace: str) -> None:
        """Raises VocableError `usage.host` for what is no host, `link.ssh` when there is no ssh here."""
        ssh = _find_ssh(host)
        self.host = host
        self._folder = Path(tempfile.mkdtemp(prefix="vocable-"))
        self.socket = self._folder / "line"
        control = ("ControlMaster=auto", f"ControlPath={self._folder}/ssh", f"ControlPersist={_PERSIST_S}")
        self._options = [ssh, "-T", *(part for text in control for part in ("-o", text))]
        self._command = [*self._options, "--", host, _command_there(workspace, "dial-stdio")]
        self._environ = _environment_there()
        self._listener = socket.socket(socket.AF_UNIX)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        atexit.register(self.close)

    def open(self) -> str:
        """Log in, which may ask for a password, see that a service answers, and listen; returns its workspace there.

        Raises:
            VocableError: `link.ssh` with ssh's own words, or with those of `vocable` on the host.
        """
        try:
            with (self._folder / "errors").open("wb+") as errors:
                done = subprocess.run(
                    self._command, input=_HELLO, stdout=subprocess.PIPE, stderr=errors, env=self._environ
                )
                errors.seek(0)
                said = errors.read().decode(errors="replace")
            workspace = _read_hello(done.stdout) if done.returncode == 0 else None
            if workspace is None:
                raise _failure(self.host, done.returncode, said)
            self._listener.bind(str(self.socket))
            self._listener.listen()
        except BaseException:
            self.close()
            raise
        self._thread.start()
        return workspace

    def close(self) -> None:
        """End every connection and the login, and remove the folder."""
        atexit.unregister(self.close)
        if not self._folder.exists():
            return
        # A thread that waits in accept is woken by the end of the socket, not by its being closed.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread.is_alive():
            self._thread.join(_END_TIMEOUT_S)
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            _end(process)
        if (self._folder / "ssh").exists():
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [*self._options, "-O", "exit", "--", self.host],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_END_TIMEOUT_S,
                )
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        """Give every connection to an ssh of its own."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._processes = [process for process in self._processes if process.poll() is None]
            with connection, contextlib.suppress(OSError):
                # A session of its own: Ctrl-C is for the program, which ends its connections itself.
                process = subprocess.Popen(
                    [*self._command[:1], "-o", "BatchMode=yes", *self._command[1:]],
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    stderr=subprocess.DEVNULL,
                    env=self._environ,
                    start_new_session=True,
                )
                self._processes.append(process)


def open_tunnel(host: str, workspace: Path | None) -> str:
    """Have everything in this program speak to the service of `host`; returns the workspace's folder there."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    tunnel = Tunnel(host, str(workspace) if workspace else "")
    folder = tunnel.open()
    os.environ[SOCKET_ENVIRONMENT] = str(tunnel.socket)
    return folder


def run_there(session: Session, *words: str) -> NoReturn:
    """Run a command of `vocable` on the session's host, with input and output of this one; it starts no service there
    that the command itself does not start.

    Raises:
        typer.Exit: with the exit code of the command.
        VocableError: as Tunnel and its `open`.
    """
    option = str(session.workspace_option) if session.workspace_option else ""
    # With a terminal of its own over there, Ctrl-C reaches the command itself.
    is_seen = sys.stdin.isatty() and sys.stdout.isatty()
    command = [_find_ssh(session.host), "-t" if is_seen else "-T", "-o", "LogLevel=ERROR"]
    command += ["--", session.host, _command_there(option, *words)]
    with tempfile.TemporaryFile() as errors:
        try:
            code = subprocess.run(command, stderr=errors, env=_environment_there()).returncode
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        errors.seek(0)
        said = errors.read().decode(errors="replace").splitlines()
    if code in (126, 127, 255):
        raise _failure(session.host, code, "\n".join(said))
    for line in said:
        say(escape(line, 2000))
    raise typer.Exit(code)


def _find_ssh(host: str) -> str:
    """Raises VocableError `usage.host` for what is no host, `link.ssh` when there is no ssh here."""
    if not host or host.startswith("-") or any(char.isspace() for char in host):
        raise VocableError("usage.host", f"'{escape(host)}' is no host.", "Give a name, or user@name, as ssh does.")
    ssh = shutil.which("ssh")
    if ssh is None:
        raise VocableError("link.ssh", "There is no ssh on this machine.", "Install an SSH client.")
    return ssh


def _command_there(workspace: str, *words: str) -> str:
    """The command line for the other machine's shell."""
    option = ["--workspace", workspace] if workspace else []
    return shlex.join([*shlex.split(os.environ.get(REMOTE_COMMAND, "vocable")), *option, *words])


def _environment_there() -> dict[str, str]:
    """Where ssh passes variables on, or is a stand-in, the other side must not be sent back here."""
    return {name: value for name, value in os.environ.items() if name != SOCKET_ENVIRONMENT}


def _leave(number: int, frame: object) -> None:
    """End the program in the way that leaves nothing behind."""
    sys.exit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read_hello(answer: bytes) -> str | None:
    """The workspace of the service that sent this, or None when it was none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if head.startswith(b"HTTP/1.1 200"):
            return str(json.loads(body)["workspace"])
    return None


def _failure(host: str, code: int, said: str) -> VocableError:
    words = _last_words(said.splitlines())
    if code == 255:
        return VocableError(
            "link.ssh", f"ssh to {host} failed: {words or 'it gave no reason.'}", f"Try: ssh {host} true"
        )
    if code in (126, 127):
        hint = f"Install it there, or say where it is: {REMOTE_COMMAND}=/path/to/vocable."
        return VocableError("link.ssh", f"There is no vocable to call on {host}: {words}", hint)
    words = words or f"it ended with {code} and without an answer."
    return VocableError("link.ssh", f"On {host}: {words}", f"Try: ssh {host} vocable daemon status")


def _last_words(lines: Sequence[str]) -> str:
    """What ssh, or the program over there, gave as its reason, as one harmless sentence."""
    told = [line.strip() for line in lines if line.strip() and not line.startswith(("Warning: Permanently", "hint:"))]
    text = escape(" ".join(told[-3:]).removeprefix("error: "), 600)
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
