"""Notifications of the kernel (inotify, through watchdog) that something below a folder changed.

Used by FolderWatch only. A hint says nothing but "look again"; the methods are called from one thread at a time.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

_log = logging.getLogger(__name__)

_READING = frozenset({"opened", "closed_no_write"})
"""Kinds of events that our own looks cause."""


class HintsRefused(Exception):
    """The kernel gives no notifications; the text says why and what would help."""


class Hints:
    """The watch on one folder and everything below it.

    Args:
        wake: called in a thread of watchdog's at each change.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.overflows = 0
        """How often the kernel dropped notifications because there were too many."""
        self._wake = wake
        self._handler = _Handler(wake)
        self._observer: BaseObserver | None = None

    def arm(self, root: Path, *, deep: bool = True) -> None:
        """Begin to watch `root`, which exists, and with `deep` all folders below it. Raises HintsRefused."""
        self.disarm()
        observer = Observer()
        try:
            observer.schedule(self._handler, str(root), recursive=deep)
            observer.start()
        except OSError as error:
            with contextlib.suppress(Exception):
                observer.stop()
            raise HintsRefused(_explain(error)) from error
        self._observer = observer
        _EAR.listeners[id(self)] = self._note_overflow

    def alive(self) -> bool:
        """Say whether all threads of the watch still run; one that failed goes silent without a word."""
        observer = self._observer
        if observer is None or not observer.is_alive():
            return False
        return bool(observer.emitters) and all(emitter.is_alive() for emitter in observer.emitters)

    def disarm(self) -> None:
        _EAR.listeners.pop(id(self), None)
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            with contextlib.suppress(RuntimeError):
                observer.join(timeout=5)

    def _note_overflow(self) -> None:
        self.overflows += 1
        self._wake()


class _Ear(logging.Handler):
    """Hears that notifications were lost: watchdog, which has one queue for all watches, tells it to its log only."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.listeners: dict[int, Callable[[], None]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if "events were lost" in record.getMessage():
            for listener in list(self.listeners.values()):
                with contextlib.suppress(Exception):  # what left here would end watchdog's thread for ever
                    listener()


_EAR = _Ear()
logging.getLogger("watchdog").addHandler(_EAR)


class _Handler(FileSystemEventHandler):
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _READING:
            return
        try:
            self._wake()
        except Exception:
            _log.exception("a hint was lost")  # an exception that left here would end watchdog's thread for ever


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EMFILE):
        key = "max_user_watches" if error.errno == errno.ENOSPC else "max_user_instances"
        limit = _limit(key)
        return f"all {limit} inotify {key[9:]} of this user are taken; for more: sysctl fs.inotify.{key}={4 * limit}"
    return f"inotify refuses this folder ({os.strerror(error.errno or 0)})"


def _limit(key: str) -> int:
    try:
        return int(Path(f"/proc/sys/fs/inotify/{key}").read_text())
    except (OSError, ValueError):
        return 8192
