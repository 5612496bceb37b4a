"""The processes that prepare pictures, as seen by the one that wants them prepared.

Called by run and plan. The invariant: a picture that crashes or stalls its process costs that picture alone, and no
process outlives the crew, whatever ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import TypeAdapter

from engine.errors import VocableError
from engine.preprocess.prepare import Facts, Piece, Prepared
from engine.preprocess.request import PreprocessOptions

TIME_LIMIT_S = 600.0
"""A picture that takes longer is given up; the largest honest ones take a minute or two on a busy machine."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
"""Pictures run side by side; the libraries' own threads would only get in each other's way."""

_FACTS = TypeAdapter(Facts)


class Crew:
    """Up to `workers` processes, each with a thread here that feeds it; a context manager."""

    def __init__(self, options: PreprocessOptions, workers: int, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._options = options.model_dump_json().encode()
        self._time_limit_s = time_limit_s
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="preprocess")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._children: set[_Child] = set()
        self._closed = False

    def measure(self, path: Path) -> Future[Facts]:
        """Hash and size of a picture; the future may hold VocableError `dataset.picture` or `preprocess.picture`."""
        return self._threads.submit(lambda: self._ask(path, "measure").facts)

    def prepare(self, path: Path) -> Future[Prepared]:
        """Everything that the options make of a picture; faults as for `measure`, and `preprocess.proportions`."""
        return self._threads.submit(lambda: self._ask(path, "prepare"))

    def close(self) -> None:
        """Kill the processes and wait until they are gone; what was not answered is cancelled or fails."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.end()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, path: Path, do: str) -> Prepared:
        child = getattr(self._own, "child", None) or self._start()
        try:
            return _unpack(child.converse({"do": do, "path": str(path)}, self._time_limit_s))
        except TimeoutError:
            how = f"took longer than {self._time_limit_s:g} seconds"
        except (EOFError, OSError):
            how = "made its decoder crash"
        self._dismiss(child)
        raise VocableError("preprocess.picture", f"The picture '{path.name}' {how}.", "Leave it out, or save it anew.")

    def _start(self) -> _Child:
        with self._lock:
            if self._closed:
                raise VocableError("preprocess.picture", "Preparing pictures was ended.")
            child = _Child(self._options)
            self._children.add(child)
        self._own.child = child
        return child

    def _dismiss(self, child: _Child) -> None:
        self._own.child = None
        with self._lock:
            self._children.discard(child)
        child.kill()
        child.end()


class _Child:
    """One process. It is spawned by the thread that talks to it and dies with that thread at the latest."""

    def __init__(self, options: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = ["-P", "-m", "engine.preprocess.child", f"--parent={os.getpid()}", f"--fd={theirs.fileno()}"]
            self._process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | _ONE_THREAD,
            )
        self._line = Connection(ours.detach())
        with contextlib.suppress(OSError):  # gone already: the first question will tell
            self._line.send_bytes(options)

    def converse(self, request: dict[str, str], time_limit_s: float) -> bytes:
        """Raises TimeoutError, EOFError or OSError."""
        self._line.send_bytes(json.dumps(request).encode())
        if not self._line.poll(time_limit_s):
            raise TimeoutError
        return self._line.recv_bytes()

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Wait for a process that was killed, and let go of the line."""
        self._process.wait()
        self._line.close()


def _unpack(message: bytes) -> Prepared:
    """Raises the VocableError that the message holds."""
    head, _, rest = message.partition(b"\n")
    header: dict[str, Any] = json.loads(head)
    if "error" in header:
        raise VocableError(**header["error"])
    facts = _FACTS.validate_python(header["facts"])
    pieces, at = [], 0
    for step, width, height, flipped, size in header.get("pieces", ()):
        pieces.append(Piece(step, width, height, flipped, rest[at : at + size]))
        at += size
    return Prepared(facts, tuple(pieces), rest[at : at + header.get("debug", 0)])
