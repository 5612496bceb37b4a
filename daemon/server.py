"""The socket and the life of the service: bind, serve, notice signals, stop in bounded time.

Called by `daemon.__main__` in the main thread, which must be the one that spawns workers. Whoever calls this holds
the instance lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvicorn

from daemon.api.app import build_app
from daemon.connections import Connection
from daemon.keeper import MakeWorker, backoff_s
from daemon.lock import InstanceLock, bind_socket, remove_stale_socket, socket_identity
from daemon.paths import Workspace, find_socket, shared_socket_path, socket_path
from daemon.peers import find_group
from daemon.service import Service
from daemon.settings import Settings
from daemon.signals import signals_to
from daemon.summary import dump_state, status_line
from daemon.systemd import Notifier, extending, keep_posted
from daemon.watch.suspend import follow_suspends
from engine.errors import VocableError

CHECKPOINT_TIMEOUT_S = 4.0
"""The current run has so long to write a checkpoint when the service stops."""
STREAMS_TIMEOUT_S = 2
"""Clients have so long to take what is sent to them at the end. Both together stay below the 10 s of a stop."""
SOCKET_CHECK_S = 15.0
SILENT = Notifier()
"""Nobody is told how the service fares."""

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

    async def listen_again(self, path: Path, group: int | None) -> None:
        """Bind the socket afresh, after somebody removed its file."""
        loop = asyncio.get_running_loop()

        def make_connection() -> Connection:
            return Connection(self.config, self.server_state, self.lifespan.state, _loop=loop, group=group)

        listener = bind_socket(path, group)
        self.servers.append(await loop.create_server(make_connection, sock=listener))


async def serve(
    workspace: Workspace,
    settings: Settings,
    lock: InstanceLock,
    *,
    environ: Mapping[str, str],
    on_ready: Callable[[], None],
    passed: Sequence[socket.socket] = (),
    notifier: Notifier = SILENT,
    make_worker: MakeWorker | None = None,
    make_preparer: MakeWorker | None = None,
    backoff: Callable[[int], float] = backoff_s,
    checkpoint_timeout_s: float = CHECKPOINT_TIMEOUT_S,
    socket_check_s: float = SOCKET_CHECK_S,
) -> None:
    """Serve until SIGTERM, SIGINT or a client's request ends it; a second signal makes the end quick.

    Args:
        on_ready: called when the socket answers.
        passed: sockets that listen already and belong to the service manager; without them one is bound.
        notifier: the way to the service manager.

    Raises:
        VocableError: `socket.*` when the socket cannot be bound.
    """
    group = find_group(settings.service.group) if settings.service.group else None
    path = _choose_path(workspace, environ, passed, group)
    workspace = replace(workspace, moved_runs=settings.paths.runs)
    service = Service(
        workspace, settings, socket=path, make_worker=make_worker, make_preparer=make_preparer, backoff=backoff
    )
    listeners = list(passed) or [bind_socket(path, group)]
    lock.describe(pid=os.getpid(), boot_id=service.boot_id, socket=path)
    server = Server(_configure(service, group))
    async with signals_to(service, lambda: dump_state(service, len(server.server_state.connections))):
        await service.start()
        serving = asyncio.create_task(server.serve(sockets=listeners))
        if await _first(server.ready, serving):
            _log.info("ready on %s", path)
            notifier.tell_status(status_line(service), "READY=1")
            on_ready()
            tasks = [
                asyncio.create_task(keep_posted(notifier, lambda: status_line(service))),
                asyncio.create_task(follow_suspends(service.look_soon)),
            ]
            if not passed:
                tasks.append(asyncio.create_task(_guard_socket(server, service, path, group, socket_check_s)))
            await _first(service.stop_asked, serving)
            for task in tasks:
                task.cancel()
        _log.info("stopping")
        notifier.tell_status("stopping", "STOPPING=1")
        async with extending(notifier):
            await service.stop("the service stops", timeout_s=checkpoint_timeout_s)
            server.should_exit = True
            await serving
        if not passed:
            with contextlib.suppress(OSError):
                path.unlink()
    _log.info("stopped")


def _choose_path(
    workspace: Workspace, environ: Mapping[str, str], passed: Sequence[socket.socket], group: int | None
) -> Path:
    """Where clients find the service; a socket left at the other place, by one with other settings, is removed."""
    if passed:
        path = Path(os.fsdecode(passed[0].getsockname()))
        if path != find_socket(workspace, environ):
            _log.warning("clients of %s look for the service at %s", workspace.root, find_socket(workspace, environ))
        return path
    own, shared = socket_path(workspace, environ), workspace.shared_socket
    if group is None:
        if shared.parent.is_dir():
            remove_stale_socket(shared)
        return own
    remove_stale_socket(own)
    return shared_socket_path(workspace)


async def _first(event: asyncio.Event, serving: asyncio.Task[None]) -> bool:
    """Wait for the event; False when the server ended before it came."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return event.is_set()


def _configure(service: Service, group: int | None) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(service),
        http=partial(Connection, group=group),  # type: ignore[arg-type]  # whatever makes a protocol will do
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STREAMS_TIMEOUT_S,
    )


async def _guard_socket(server: Server, service: Service, path: Path, group: int | None, interval_s: float) -> None:
    """Bind again when the socket's file vanished, so that a service with a run can be reached."""
    own = socket_identity(path)
    while True:
        await asyncio.sleep(interval_s)
        if socket_identity(path) == own:
            continue
        try:
            await server.listen_again(path, group)
        except VocableError as error:
            service.ledger.set_problem("socket", error.title)
        else:
            own = socket_identity(path)
            service.ledger.set_problem("socket", "")
            _log.warning("the socket %s was gone and is bound again", path)
