"""A child of the fork server: gives up every right and resource that reading does not need, answers one question, ends.

The invariant: nothing foreign is looked at before `confine`, and nothing of the child remains after `serve`.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import resource
import signal
import socket
from typing import NoReturn

from daemon.inspector.frames import pack, read_frame
from daemon.inspector.limits import address_space, cpu_s
from daemon.inspector.operations import OPERATIONS
from daemon.worker import guards
from engine.errors import VocableError

OPEN_FILES = 16

_CODECS = ("raw_unicode_escape", "unicode_escape", "utf-8", "utf-16", "latin-1", "ascii", "shift_jis")
"""Encodings that formats of foreign files use; Python imports each when it is first asked for."""

EXIT_FAILED = 1
"""Something unforeseen happened; the supervisor says so in its log."""


def warm_up() -> None:
    """Import what reading may need: a confined process has no business with any file."""
    from PIL import Image

    Image.init()
    for name in _CODECS:
        codecs.lookup(name)


def serve(connection: int, parent: int, size: int = 0) -> NoReturn:
    """Answer the question that comes over the socket `connection`. Called right after fork.

    Args:
        parent: process id of the fork server.
        size: bytes of the question, as the supervisor tells it.
    """
    code = EXIT_FAILED
    try:
        guards.die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        os.dup2(connection, 0)
        os.closerange(3, 1 << 20)
        confine(size)
        code = answer(socket.socket(fileno=0))
    except BrokenPipeError:
        pass  # nobody waits for the answer any more
    finally:
        os._exit(code)


def confine(size: int = 0) -> None:
    """Limit this process for good: memory, processor time, files, children. What it needs is imported already.

    Args:
        size: bytes of the question; a large one gets more memory and time.
    """
    limits = {
        resource.RLIMIT_AS: address_space(size),
        resource.RLIMIT_CPU: cpu_s(size),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))


def answer(connection: socket.socket) -> int:
    """Read a question, carry it out and send the answer; returns the exit code."""
    with connection.makefile("rb") as stream:
        header, parts = read_frame(stream)
    try:
        reply, results = OPERATIONS[header["do"]](header, parts)
    except VocableError as error:
        reply, results = {"error": error.to_dict()}, []
    except MemoryError:
        title = f"Reading the file takes more than {resource.getrlimit(resource.RLIMIT_AS)[0] >> 20} MiB of memory."
        noun = "hypernetwork" if header["do"] == "read hypernetwork" else "embedding"
        reply, results = {"error": {"code": f"{noun}.unreadable", "title": title, "hint": ""}}, []
    for piece in pack(reply, results):
        connection.sendall(piece)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    return 0
