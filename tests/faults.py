"""A disk that fails at one chosen system call, or at which everything ends there: for tests of what must survive that.

`faulty_disk` replaces the functions through which the program changes files below one folder, and those alone. It
follows what has been synced, so that a test can ask what a power cut would have left (POSIX's worst case: a file has
the content of its last fsync, a folder the entries of its own last fsync).
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

Fault = Literal["EIO", "ENOSPC", "EACCES", "short", "full", "end", "kill"]
"""The first three: the call fails so, once. short: a write takes half of its data. full: from here on no write finds
room, after half of its data. end: nothing more happens on the disk, as after a kill (raises `Ended` ever after).
kill: a real SIGKILL of this process."""

Names = Literal["synced", "all"]
"""Which entries of folders a power cut leaves: those whose folder was synced, or also all later ones, as a file system
that writes folders before files leaves them."""

_CHANGES = ("open", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "ftruncate", "fsync", "write")


class Ended(BaseException):
    """The process is dead, as far as its disk can tell."""


class Disk:
    """The calls so far, and what of their effects is durable."""

    def __init__(self, root: Path, at: int, fault: Fault) -> None:
        self.calls: list[str] = []
        """Name of each call, and the file's."""
        self._root = root
        self._at = at
        self._fault = fault
        self._held: dict[int, int] = {}
        self._contents: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, int]] = {}
        for folder, _, files in os.walk(root):
            self._sync(Path(folder))
            for name in files:
                self._sync(Path(folder, name))

    def close(self) -> None:
        for handle in self._held.values():
            _REAL["close"](handle)

    def take(self, name: str, path: Path, act: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """One system call: its fault, or its effect."""
        number = len(self.calls) + 1
        is_due = number == self._at or (number > self._at > 0 and self._fault in ("end", "full"))
        self.calls.append(f"{name} {path.name}")
        if not is_due:
            return act()
        match self._fault:
            case "end":
                raise Ended
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "short":
                return half() if half else act()
            case "full":
                if name not in ("write", "mkdir", "link"):
                    return act()
                if half and number == self._at:
                    return half()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            case fault:
                raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))

    def note_synced(self, path: Path) -> None:
        if path.exists():
            self._sync(path)

    def cut_power(self, target: Path, *, names: Names) -> None:
        """Build in `target` what would be on the disk now."""
        self._build(self._root, target, os.stat(self._root).st_ino, names == "all")

    def _build(self, path: Path, target: Path, folder: int, now: bool) -> None:
        target.mkdir()
        entries = _entries(path) if now and path.is_dir() else self._entries.get(folder, {})
        for name, node in entries.items():
            if node in self._contents or not self._is_folder(node):
                (target / name).write_bytes(self._contents.get(node, b""))
            else:
                self._build(path / name, target / name, node, now)

    def _is_folder(self, node: int) -> bool:
        return os.path.isdir(f"/proc/self/fd/{self._held[node]}") if node in self._held else node in self._entries

    def hold(self, path: Path) -> None:
        """Keep the file open, so that its number is not given to another one."""
        node = os.stat(path).st_ino
        if node not in self._held:
            self._held[node] = _REAL["open"](path, os.O_RDONLY)

    def _sync(self, path: Path) -> None:
        self.hold(path)
        node = os.stat(path).st_ino
        if path.is_dir():
            self._entries[node] = _entries(path)
        else:
            with _REAL["io.open"](path, "rb") as file:
                self._contents[node] = file.read()


@contextmanager
def faulty_disk(root: Path, *, at: int = 0, fault: Fault = "EIO") -> Iterator[Disk]:
    """Run the block on a disk whose call number `at` (from 1; 0 for none) below `root` has a fault."""
    disk = Disk(root, at, fault)
    with ExitStack() as stack:
        for name in _CHANGES:
            stack.enter_context(mock.patch.object(os, name, _wrap(disk, name, root)))
        opening = _wrap_open(disk, root)
        stack.enter_context(mock.patch.object(io, "open", opening))
        stack.enter_context(mock.patch.object(builtins, "open", opening))
        try:
            yield disk
        finally:
            stack.close()
            disk.close()


def count_calls(root: Path, work: Callable[[], Any]) -> int:
    """How many system calls `work` makes below `root` when none of them fails."""
    with faulty_disk(root) as disk:
        work()
        return len(disk.calls)


def kill_at(root: Path, at: int, work: Callable[[], Any]) -> bool:
    """Do `work` in a forked process that is killed at call `at`; whether it came so far."""
    child = os.fork()
    if not child:
        try:
            with faulty_disk(root, at=at, fault="kill"):
                work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


_REAL: dict[str, Any] = {name: getattr(os, name) for name in (*_CHANGES, "close")} | {"io.open": io.open}


def _wrap(disk: Disk, name: str, root: Path) -> Callable[..., Any]:
    real = _REAL[name]

    def call(first: Any, *rest: Any, **named: Any) -> Any:
        path = _path_of(first, named.get("dir_fd") or named.get("src_dir_fd"))
        if path is None or not path.is_relative_to(root):
            return real(first, *rest, **named)

        def act() -> Any:
            if name == "fsync":
                return disk.note_synced(path)
            result = real(first, *rest, **named)
            if name == "mkdir" or (name == "open" and rest and rest[0] & os.O_CREAT):
                disk.hold(path)
            return result

        half = (lambda: real(first, bytes(rest[0])[: len(rest[0]) // 2])) if name == "write" else None
        return disk.take(name, path, act, half)

    return call


def _wrap_open(disk: Disk, root: Path) -> Callable[..., Any]:
    def call(file: Any, *rest: Any, **named: Any) -> Any:
        path = _path_of(file, None)
        if path is None or not path.is_relative_to(root):
            return _REAL["io.open"](file, *rest, **named)
        return disk.take("read", path, lambda: _REAL["io.open"](file, *rest, **named))

    return call


def _path_of(first: Any, folder: int | None) -> Path | None:
    """The file that a call is about; None when it is no file of a folder."""
    if isinstance(first, int):
        text = os.readlink(f"/proc/self/fd/{first}")
        return Path(text.removesuffix(" (deleted)")) if text.startswith("/") else None
    path = Path(os.fsdecode(first))
    if folder is not None:
        return Path(os.readlink(f"/proc/self/fd/{folder}")) / path
    return path if path.is_absolute() else Path.cwd() / path


def _entries(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as found:
        return {entry.name: entry.inode() for entry in found}
