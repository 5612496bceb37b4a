"""Going on in the background: the program forks, and the parent stays until the child serves or gave up.

Called by `daemon.__main__` before anything that starts threads is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from daemon.logs import MAX_LINE
from engine.files import write_error
from engine.text import escape

_READY = b"\0"
_MAX_LOG = 4 << 20


def detach(log: Path) -> tuple[Callable[[str], None], Callable[[], None]]:
    """Return in the child only, in a session of its own, with stdout and stderr in `log`.

    The parent ends with 0 when the child says that it is ready, and else with the child's message and exit code.

    Returns:
        What the child calls with the reason why it cannot serve, and what it calls when it is ready.

    Raises:
        VocableError: `disk.*` when the log cannot be opened.
    """
    output = _open_log(log)
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        _await_child(child, reader)
    os.close(reader)
    os.setsid()
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for spare in (empty, output):
        os.close(spare)

    def report(message: str) -> None:
        message = escape(message, MAX_LINE)
        sys.stderr.write(f"vocabled: {message}\n")
        os.write(writer, message.encode(errors="replace")[:4000])

    def on_ready() -> None:
        os.write(writer, _READY)
        os.close(writer)

    return report, on_ready


def _await_child(child: int, reader: int) -> None:
    with os.fdopen(reader, "rb") as pipe:
        message = pipe.read()
    if message == _READY:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    text = message.decode(errors="replace") or "The service ended before it was ready."
    sys.stderr.write(f"vocabled: {text}\n")
    sys.stderr.flush()
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _open_log(log: Path) -> int:
    """The log, which begins anew when it has grown large; one older generation is kept."""
    try:
        if log.exists() and log.stat().st_size > _MAX_LOG:
            os.replace(log, log.with_name(f"{log.name}.1"))
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise write_error(log, error) from error
