"""One service for each workspace: the lock that says so, and the socket that only its holder may bind.

The lock is a `flock` on `state/lock`, which ends with the process however that dies; it is taken before anything is
unlinked. What stands in the file is for messages only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
from pathlib import Path

from daemon.paths import group_refused, make_group_folder, make_private_folder
from engine.errors import VocableError

BACKLOG = 128
SOCKET_MODE = 0o600
GROUP_SOCKET_MODE = 0o660


class InstanceLock:
    """The hold on a workspace; `release` or the end of the process lets go."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def describe(self, *, pid: int, boot_id: str, socket: Path) -> None:
        """Write down who holds the lock."""
        text = json.dumps({"pid": pid, "boot_id": boot_id, "socket": str(socket)}) + "\n"
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text.encode(), 0)

    def release(self) -> None:
        os.close(self._handle)


def take_lock(path: Path) -> InstanceLock:
    """Take the workspace for this process.

    Raises:
        VocableError: `daemon.running` when another process has it, `workspace.unusable` when the file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise VocableError(
            "workspace.unusable", f"{path} cannot be opened ({error.strerror}).", "Check the folder's permissions."
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _describe_holder(handle)
        os.close(handle)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise VocableError(
                "workspace.unusable",
                f"{path} cannot be locked ({error.strerror}).",
                "Put the workspace on a local file system.",
            ) from None
        raise VocableError(
            "daemon.running", f"A service{holder} runs on this workspace already.", "Use that one, or stop it first."
        ) from None
    return InstanceLock(handle)


def bind_socket(path: Path, group: int | None = None) -> socket.socket:
    """Bind and listen; a stale socket is replaced. Needs the lock.

    The socket has mode 0600 in a folder of mode 0700; with `group` it has mode 0660 in one of mode 0750, and both
    belong to that group.

    Raises:
        VocableError: `socket.blocked` when something that is no socket lies at `path` (it is left there), or the
            system refuses; `socket.unsafe` when others can enter the folder; `socket.group` when it cannot be given to
            the group.
    """
    if group is None:
        make_private_folder(path.parent)
    else:
        make_group_folder(path.parent, group)
    remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        # The mode of the unbound socket is what bind gives the file, so there is no moment with a wider one.
        os.fchmod(listener.fileno(), SOCKET_MODE)
        listener.bind(str(path))
        os.chmod(path, SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise VocableError(
            "socket.blocked", f"The socket {path} cannot be bound ({error.strerror or error}).", _BLOCKED_HINT
        ) from None
    if group is not None:
        _give_to_group(path, group, listener)
    return listener


def _give_to_group(path: Path, group: int, listener: socket.socket) -> None:
    try:
        os.chown(path, -1, group, follow_symlinks=False)
        os.chmod(path, GROUP_SOCKET_MODE)
    except OSError as error:
        listener.close()
        path.unlink(missing_ok=True)
        raise group_refused(path, error) from None


def socket_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the socket at `path`; None when there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


_BLOCKED_HINT = "Move it away, or choose another workspace."


def remove_stale_socket(path: Path) -> None:
    """Remove the socket of a service that is gone. Needs the lock. Raises VocableError `socket.blocked`."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise VocableError("socket.blocked", f"{path} is in the way: it is no socket.", _BLOCKED_HINT)
    path.unlink(missing_ok=True)


def _describe_holder(handle: int) -> str:
    try:
        return f" (pid {int(json.loads(os.pread(handle, 4096, 0))['pid'])})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
