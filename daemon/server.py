"""The socket and the life of the service: bind, serve, notice signals, stop in bounded time.

Called by `daemon.__main__` in the main thread, which must be the one that spawns workers. Whoever calls this holds
the instance lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import uvicorn

from daemon.api.app import build_app
from daemon.connections import Connection
from daemon.keeper import MakeWorker, backoff_s
from daemon.lock import InstanceLock, bind_socket, socket_identity
from daemon.paths import Workspace, socket_path
from daemon.service import Service
from daemon.settings import Settings
from engine.errors import VocableError

CHECKPOINT_TIMEOUT_S = 4.0
"""The current run has so long to write a checkpoint when the service stops."""
STREAMS_TIMEOUT_S = 2
"""Clients have so long to take what is sent to them at the end. Both together stay below the 10 s of a stop."""
SOCKET_CHECK_S = 15.0

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn on a socket of ours; signals are the service's business, which has more to stop than connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def listen_again(self, path: Path) -> None:
        """Bind the socket afresh, after somebody removed its file."""
        loop = asyncio.get_running_loop()

        def make_connection() -> Connection:
            return Connection(self.config, self.server_state, self.lifespan.state, _loop=loop)

        listener = bind_socket(path)
        self.servers.append(await loop.create_server(make_connection, sock=listener))


async def serve(
    workspace: Workspace,
    settings: Settings,
    lock: InstanceLock,
    *,
    environ: Mapping[str, str],
    on_ready: Callable[[], None],
    make_worker: MakeWorker | None = None,
    backoff: Callable[[int], float] = backoff_s,
    checkpoint_timeout_s: float = CHECKPOINT_TIMEOUT_S,
    socket_check_s: float = SOCKET_CHECK_S,
) -> None:
    """Serve until SIGTERM, SIGINT or a client's request ends it; a second signal makes the end quick.

    Args:
        on_ready: called when the socket answers.

    Raises:
        VocableError: `socket.*` when the socket cannot be bound.
    """
    path = socket_path(workspace, environ)
    service = Service(workspace, settings, socket=path, make_worker=make_worker, backoff=backoff)
    listener = bind_socket(path)
    lock.describe(pid=os.getpid(), boot_id=service.boot_id, socket=path)
    server = Server(_configure(service))
    with _signals_to(service):
        await service.start()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        if await _first(server.ready, serving):
            _log.info("ready on %s", path)
            on_ready()
            guarding = asyncio.create_task(_guard_socket(server, service, path, socket_check_s))
            await _first(service.stop_asked, serving)
            guarding.cancel()
        _log.info("stopping")
        await service.stop("the service stops", timeout_s=checkpoint_timeout_s)
        server.should_exit = True
        await serving
        with contextlib.suppress(OSError):
            path.unlink()
    _log.info("stopped")


async def _first(event: asyncio.Event, serving: asyncio.Task[None]) -> bool:
    """Wait for the event; False when the server ended before it came."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return event.is_set()


def _configure(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(service),
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STREAMS_TIMEOUT_S,
    )


@contextlib.contextmanager
def _signals_to(service: Service) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end, again for a quick one; SIGHUP (a terminal closed) means nothing."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if service.stop_asked.is_set():
            service.queue.hurry()
        service.stop_asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, old)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _guard_socket(server: Server, service: Service, path: Path, interval_s: float) -> None:
    """Bind again when the socket's file vanished, so that a service with a run can be reached."""
    own = socket_identity(path)
    while True:
        await asyncio.sleep(interval_s)
        if socket_identity(path) == own:
            continue
        try:
            await server.listen_again(path)
        except VocableError as error:
            service.ledger.set_problem("socket", error.title)
        else:
            own = socket_identity(path)
            service.ledger.set_problem("socket", "")
            _log.warning("the socket %s was gone and is bound again", path)
