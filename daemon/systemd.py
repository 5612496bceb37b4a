"""The service's side of what systemd offers: readiness and watchdog (sd_notify(3)), passed sockets (sd_listen_fds(3)).

Used by `daemon.__main__` and the server. Without systemd's variables nothing here does anything. What is read is taken
out of the environment, so that no child of the service takes it for its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass

from engine.errors import VocableError
from engine.text import escape

FIRST_FD = 3
STATUS_INTERVAL_S = 5.0
EXTENSION_S = 15
"""The end may take so long again from now on; told over and over while a checkpoint is written."""
EXTENSION_INTERVAL_S = 3.0

_SEND_TIMEOUT_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notifier:
    """The way to the service manager."""

    address: str = ""
    """$NOTIFY_SOCKET; empty when nobody listens."""
    watchdog_s: float = 0.0
    """Without a sign of life for so long the manager ends the service; 0 when it does not watch."""

    def tell(self, *assignments: str) -> None:
        """Send lines like `READY=1`. That nobody takes them is no reason to fail."""
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_SEND_TIMEOUT_S)
            try:
                sender.sendto("\n".join(assignments).encode(), address)
            except OSError as error:
                _log.debug("the service manager cannot be told %s (%s)", assignments[0], error)

    def tell_status(self, text: str, *more: str) -> None:
        self.tell(f"STATUS={escape(text, 500)}", *more)


def take_notifier(environ: MutableMapping[str, str], pid: int) -> Notifier:
    """What $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID say; they are removed."""
    address, interval, watched = (environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
    is_ours = watched in ("", str(pid)) and interval.isdigit()
    return Notifier(address, int(interval) / 1e6 if is_ours else 0.0)


def take_sockets(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """The listening sockets that were passed to this process; the variables that say so are removed.

    Raises:
        VocableError: `socket.passed` when one is not a listening Unix stream socket.
    """
    owner, count, _ = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if owner != str(pid) or not count.isdigit():
        return []
    return [_adopt(number) for number in range(FIRST_FD, FIRST_FD + int(count))]


def _adopt(number: int) -> socket.socket:
    try:
        os.set_inheritable(number, False)
        listener = socket.socket(fileno=number)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError as error:
        raise _unfit(number, error.strerror or str(error)) from None
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM or not is_listening:
        listener.detach()
        raise _unfit(number, "it is no listening Unix stream socket")
    listener.setblocking(False)
    return listener


def _unfit(number: int, reason: str) -> VocableError:
    return VocableError(
        "socket.passed",
        f"The socket that systemd passed as descriptor {number} cannot be used: {reason}.",
        "In the socket unit use ListenStream= with a path.",
    )


async def keep_posted(notifier: Notifier, describe: Callable[[], str]) -> None:
    """Feed the watchdog from the event loop, and tell the status when it changed, until cancelled.

    A sign of life is left out when the loop itself was late by a sixth of the watchdog's time: a loop that is late
    over and over serves nobody.
    """
    if not notifier.address:
        return
    loop = asyncio.get_running_loop()
    interval_s = notifier.watchdog_s / 3 or STATUS_INTERVAL_S
    told = ""
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        if notifier.watchdog_s and loop.time() - due <= interval_s / 2:
            notifier.tell("WATCHDOG=1")
        status = describe()
        if status != told:
            notifier.tell_status(status)
            told = status


@contextlib.asynccontextmanager
async def extending(notifier: Notifier) -> AsyncIterator[None]:
    """Ask the manager for patience, and feed its watchdog, while the block runs."""

    async def ask() -> None:
        while True:
            notifier.tell(f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 1_000_000}", "WATCHDOG=1")
            await asyncio.sleep(min(EXTENSION_INTERVAL_S, notifier.watchdog_s / 3 or EXTENSION_INTERVAL_S))

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
