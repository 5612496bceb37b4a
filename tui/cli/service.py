"""`daemon start|stop|status|logs`: the workspace's service itself. None of these starts it but `start`.

With --host each is run on the other machine, which knows its own processes and logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import VocableError
from tui.cli.dial import run_there
from tui.cli.output import FAILED, INTERRUPTED, print_json, print_text, say
from tui.cli.session import AsJson, connect, session_of

if TYPE_CHECKING:
    from daemon.paths import Workspace
    from daemon.protocol.service import ServerInfo, State

app = typer.Typer(no_args_is_help=True, help="Start, stop and look at the service of the workspace.")

_POLL_S = 0.3
_LONGEST_LINE = 10_000


@app.command()
def start(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Start the service, or say that it runs already."""
    session = session_of(ctx)
    if session.host:
        run_there(session, "daemon", "start", *_json_option(as_json))
    _print_status(session.workspace, asyncio.run(_read_status(session.workspace, starting=True)), as_json=as_json)


@app.command()
def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Say whether the service runs, and as what; ends with 1 when it does not."""
    session = session_of(ctx)
    if session.host:
        run_there(session, "daemon", "status", *_json_option(as_json))
    found = asyncio.run(_read_status(session.workspace, starting=False))
    _print_status(session.workspace, found, as_json=as_json)
    if found is None:
        raise typer.Exit(FAILED)


@app.command()
def stop(
    ctx: typer.Context,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait until it is gone.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Stop the service. A running run keeps a checkpoint and goes on with the next start."""
    session = session_of(ctx)
    if session.host:
        run_there(session, "daemon", "stop", f"--timeout={timeout_s:g}", *_json_option(as_json))
    workspace = session.workspace
    was_running = asyncio.run(stop_service(workspace, timeout_s))
    if as_json:
        print_json({"running": False, "stopped": was_running, "workspace": str(workspace.root)})
    else:
        say("The service is stopped." if was_running else f"No service runs for {workspace.root}.")


@app.command()
def logs(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is added.")] = False,
    worker: Annotated[bool, typer.Option("--worker", help="The worker's log instead of the service's.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines to print.")] = 50,
) -> None:
    """Print the end of the service's log."""
    session = session_of(ctx)
    if session.host:
        flags = [flag for flag, is_set in (("--follow", follow), ("--worker", worker)) if is_set]
        run_there(session, "daemon", "logs", f"--lines={lines}", *flags)
    workspace = session.workspace
    path = workspace.worker_log if worker else workspace.daemon_log
    if not path.exists() and not follow:
        raise VocableError(
            "log.absent", f"There is no log at {path} yet.", "A service in the foreground writes to its own stderr."
        )
    try:
        _print_log(path, lines, follow=follow)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _json_option(as_json: bool) -> list[str]:
    return ["--json"] if as_json else []


async def is_running(workspace: Workspace) -> bool:
    return await _read_status(workspace, starting=False) is not None


async def stop_service(workspace: Workspace, timeout_s: float) -> bool:
    """Ask the service to stop and wait until its process is gone; False when none was running.

    Raises:
        VocableError: `daemon.busy` when it is still there after `timeout_s`.
    """
    from daemon.client import Client, socket_for
    from daemon.paths import SOCKET_ENVIRONMENT

    async with Client(socket_for(workspace)) as client:
        try:
            info = await client.info()
            process = None if SOCKET_ENVIRONMENT in os.environ else _open_process(info.pid)
            await client.shutdown()
        except VocableError as error:
            if error.code == "link.absent":
                return False
            raise
    if process is not None and not await asyncio.to_thread(_wait_for_end, process, timeout_s):
        raise VocableError(
            "daemon.busy",
            f"The service (pid {info.pid}) was told to stop and is still there after {timeout_s:g} s.",
            "It may be saving; wait, or see: vocable daemon logs.",
        )
    return True


def _open_process(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.pidfd_open(pid)
    return None


def _wait_for_end(process: int, timeout_s: float) -> bool:
    try:
        return bool(select.select([process], [], [], timeout_s)[0])
    finally:
        os.close(process)


async def _read_status(workspace: Workspace, *, starting: bool) -> tuple[ServerInfo, State] | None:
    from daemon.client import Client, socket_for

    try:
        if starting:
            async with connect(workspace) as client:
                return await client.info(), await client.state()
        async with Client(socket_for(workspace)) as client:
            return await client.info(), await client.state()
    except VocableError as error:
        if error.code == "link.absent" and not starting:
            return None
        raise


def _print_status(workspace: Workspace, found: tuple[ServerInfo, State] | None, *, as_json: bool) -> None:
    values = _status_values(workspace, found)
    if as_json:
        print_json(values)
    elif found is None:
        say(f"No service runs for {workspace.root}.")
    else:
        folders = values.pop("folders")
        told = {label.replace("_", " "): value for label, value in values.items() if value not in (None, "", True)}
        told |= {f"{name}/": _describe_folder(health) for name, health in folders.items()}
        width = max(map(len, told)) + 2
        for label, value in told.items():
            print_text(f"{label:<{width}}{value}")


def _describe_folder(health: Mapping[str, Any]) -> str:
    """How a folder is watched, on one line."""
    count, reason = health.get("entries", 0), health.get("reason", "")
    entries = "1 entry" if count == 1 else f"{count} entries"
    return f"{entries}, watched ({health.get('mode', '')})" + (f": {reason}" if reason else "")


def _status_values(workspace: Workspace, found: tuple[ServerInfo, State] | None) -> dict[str, Any]:
    if found is None:
        from daemon.client import socket_for

        socket = str(socket_for(workspace))
        return {"running": False, "pid": None, "worker_pid": None, "socket": socket, "workspace": str(workspace.root)}
    info, state = found
    return {
        "running": True,
        "pid": info.pid,
        "worker_pid": state.worker.pid,
        "worker": state.worker.state,
        "device": state.worker.device,
        "model": state.worker.model,
        "note": state.worker.note,
        "problem": state.problem,
        "socket": info.socket,
        "workspace": info.workspace,
        "version": info.daemon,
        "folders": state.folders,
    }


def _print_log(path: Path, lines: int, *, follow: bool) -> None:
    """Print the last lines; with `follow` whatever is added, also after the log was begun anew."""
    position = 0
    if path.exists():
        with path.open("rb") as file:
            for line in deque(file, maxlen=lines):
                _print_line(line)
            position = file.tell()
    while follow:
        time.sleep(_POLL_S)
        size = path.stat().st_size if path.exists() else 0
        position = min(position, size) if size >= position else 0
        if size > position:
            with path.open("rb") as file:
                file.seek(position)
                for line in file:
                    _print_line(line)
                position = file.tell()


def _print_line(line: bytes) -> None:
    from engine.text import escape

    text = line.decode(errors="replace").rstrip("\n").replace("\t", "    ")
    # The service writes a traceback into one line; on the screen its lines stand below each other again, indented, so
    # that none of them can pass for an entry of its own.
    print(escape(text, _LONGEST_LINE).replace("\\x0a", "\n    "), file=sys.stdout, flush=True)
