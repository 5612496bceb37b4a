"""`vocabled`: the service of one workspace, in the foreground or, with --detach, in the background.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong use, 75 another service has the workspace, 78 settings or workspace
cannot be used.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from daemon.detach import detach
from daemon.logs import MAX_LINE, is_journal, setup_logging
from daemon.paths import Workspace, find_workspace
from engine.errors import VocableError
from engine.text import escape

EXIT_CODES = {
    "daemon.running": os.EX_TEMPFAIL,
    "settings.invalid": os.EX_CONFIG,
    "socket.blocked": os.EX_CONFIG,
    "socket.group": os.EX_CONFIG,
    "socket.passed": os.EX_CONFIG,
    "socket.too_long": os.EX_CONFIG,
    "socket.unsafe": os.EX_CONFIG,
    "workspace.unusable": os.EX_CONFIG,
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    workspace = find_workspace(options.workspace, os.environ, Path.cwd())
    report: Callable[[str], None] = _say
    on_ready: Callable[[], None] = _do_nothing
    try:
        workspace.create()
        if options.detach:
            report, on_ready = detach(workspace.daemon_log)
        run(workspace, on_ready)
    except VocableError as error:
        report(f"{error.title} {error.hint}".strip())
        sys.exit(EXIT_CODES.get(error.code, 1))
    except Exception:
        logging.getLogger(__name__).critical("the service failed", exc_info=True)
        report("The service failed; its log tells more. Please report it.")
        sys.exit(1)


def run(workspace: Workspace, on_ready: Callable[[], None]) -> None:
    """Serve the workspace until told to stop.

    Raises:
        VocableError: when it cannot be served; the codes of EXIT_CODES among them.
    """
    import asyncio

    from daemon.lock import take_lock
    from daemon.settings import read_settings
    from daemon.systemd import take_notifier, take_sockets

    # These two end a program that does not expect them; the server handles them as soon as it can.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    setup_logging(os.environ)
    notifier, passed = take_notifier(os.environ, os.getpid()), take_sockets(os.environ, os.getpid())
    # Whatever names a file without saying where means one in the workspace, wherever the service was started.
    os.chdir(workspace.root)
    settings = read_settings(workspace.settings)
    lock = take_lock(workspace.lock)
    try:
        from daemon.server import serve

        asyncio.run(
            serve(
                workspace,
                settings,
                lock,
                environ=os.environ,
                on_ready=on_ready,
                passed=passed,
                notifier=notifier,
            )
        )
    finally:
        lock.release()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vocabled", description="The service that trains and makes pictures.")
    parser.add_argument(
        "--workspace",
        type=Path,
        help="folder with models, embeddings and runs; default: $VOCABLE_WORKSPACE, the current folder if it is one, "
        "else the user's data folder",
    )
    parser.add_argument("--detach", action="store_true", help="return when the service answers; it goes on by itself")
    parser.add_argument("--version", action="version", version=f"vocabled {version('vocable')}")
    return parser.parse_args(arguments)


def _say(message: str) -> None:
    prefix = "<3>" if is_journal(os.environ) else ""
    sys.stderr.write(f"{prefix}vocabled: {escape(message, MAX_LINE)}\n")


def _do_nothing() -> None:
    pass


if __name__ == "__main__":
    main()
