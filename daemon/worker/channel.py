"""The worker's end of the socketpair: threads that read, write and beat, so that the work itself never waits.

Used by daemon.worker.main. The invariant: this process does not outlive the connection, and no fact is dropped; of
progress only the newest is kept while the supervisor is not reading.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import NoReturn

from daemon.worker.wire import Decoder, Message, WireError, encode

BEAT_S = 0.5

_STDERR = 2
_CHUNK = 1 << 16
_MAX_WAITING = 4096
"""Messages that wait for the supervisor; with more, `send` waits too."""
_MAX_LOSSES = 2000
"""Losses in one merged report of progress."""


class Channel:
    """Messages to and from the supervisor. `send` may be called from any thread, `receive` from the main one."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._outbox = Outbox()
        self._ending = threading.Event()

    def start(self) -> None:
        for work in (self._read, self._write, self._beat):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()

    def send(self, message: Message) -> None:
        """Queue a message. Raises WireError when it cannot be sent (too long, NaN)."""
        self._outbox.put(message)

    def receive(self, *, wait: bool) -> Message | None:
        """Return the next message; None when there is none and `wait` is false."""
        try:
            return self._inbox.get(block=wait)
        except queue.Empty:
            return None

    def remind(self, message: Message) -> None:
        """Put a message of this process's own into the inbox; safe in a signal handler."""
        self._inbox.put(message)

    def finish(self, *, timeout_s: float) -> None:
        """Wait until everything queued is with the kernel."""
        self._ending.set()
        self._outbox.wait_empty(timeout_s)

    def _read(self) -> None:
        decoder = Decoder()
        try:
            while data := self._socket.recv(_CHUNK):
                for message in decoder.feed(data):
                    self._inbox.put(message)
        except (OSError, WireError) as error:
            _leave(f"the connection to the supervisor broke ({error})")
        _leave("the supervisor is gone")

    def _write(self) -> None:
        while True:
            frame = self._outbox.take()
            try:
                self._socket.sendall(frame)
            except OSError as error:
                _leave(f"the connection to the supervisor broke ({error})")
            self._outbox.sent()

    def _beat(self) -> None:
        while not self._ending.wait(BEAT_S):
            self._outbox.put({"type": "beat"})


@dataclass
class _Waiting:
    message: Message
    frame: bytes


class Outbox:
    """Frames that wait to be sent, in order. A report that only updates the one queued just before it joins it."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._sending = False

    def put(self, message: Message) -> None:
        entry = _Waiting(message, encode(message))
        with self._changed:
            joined = _join(self._waiting[-1].message, message) if self._waiting else None
            if joined is not None:
                self._waiting[-1] = _Waiting(joined, encode(joined))
                return
            self._changed.wait_for(lambda: len(self._waiting) < _MAX_WAITING)
            self._waiting.append(entry)
            self._changed.notify_all()

    def take(self) -> bytes:
        """Wait for a frame and return it; `sent` says that it is away."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting))
            self._sending = True
            self._changed.notify_all()
            return self._waiting.popleft().frame

    def sent(self) -> None:
        with self._changed:
            self._sending = False
            self._changed.notify_all()

    def wait_empty(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._sending, timeout_s)


def _join(older: Message, newer: Message) -> Message | None:
    """Make one report of two that follow each other, or return None when both must be sent."""
    if older["type"] != newer["type"]:
        return None
    if newer["type"] == "beat" or (newer["type"] == "job" and older["job"] == newer["job"]):
        return newer
    if newer["type"] != "event" or older["run"] != newer["run"]:
        return None
    first, second = older["event"], newer["event"]
    if first["event"] != "progress" or second["event"] != "progress":
        return None
    losses = [*first["losses"], *second["losses"]]
    return {**newer, "event": {**second, "losses": losses}} if len(losses) <= _MAX_LOSSES else None


def _leave(reason: str) -> NoReturn:
    """End the process from whatever thread: without the supervisor there is nobody to work for."""
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{reason}\n".encode())
    os._exit(os.EX_UNAVAILABLE)
