"""A crew of threads, for tests of what is made of the answers and not of the processes that give them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from engine.preprocess import crew
from engine.preprocess.child import serve


class Hand(crew._Child):
    """Serves over a real line, but from a thread: a process takes a third of a second of a core to start."""

    def __init__(self, options: bytes) -> None:
        ours, theirs = socket.socketpair()
        self._end = ours.dup()
        self._line = Connection(ours.detach())
        self._thread = threading.Thread(target=self._serve, args=[Connection(theirs.detach())])
        self._thread.start()
        self._line.send_bytes(options)

    @staticmethod
    def _serve(line: Connection) -> None:
        with line:
            serve(line)

    def kill(self) -> None:
        self._end.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._thread.join()
        self._line.close()
        self._end.close()


@pytest.fixture
def in_threads() -> Iterator[pytest.MonkeyPatch]:
    """Pictures are prepared by threads of this process until `undo` is called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew, "_Child", Hand)
        yield patch
