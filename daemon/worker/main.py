"""The worker process: `python -m daemon.worker.main --fd=N ...`, started by daemon.worker.spawn only.

Its first lines tie its life to the supervisor's and start the heartbeat; only then is torch imported. What it
prints goes to the worker's log.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.worker import guards
from daemon.worker.board import Board
from daemon.worker.channel import Channel
from daemon.worker.crashes import write_report

_FLUSH_S = 5.0


@dataclass(frozen=True)
class Line:
    """What ties the worker to its supervisor."""

    channel: Channel
    board: Board
    report: Path
    """File to write when an exception ends the process."""


def main() -> None:
    line = enlist(sys.argv[1:])
    try:
        from daemon.worker.desk import Desk  # imports torch, which takes seconds; the heart beats meanwhile

        Desk(line.channel, line.board).serve()
        code = 0
    except Exception as error:
        traceback.print_exception(error)
        write_report(line.report, error, line.board.read())
        code = os.EX_SOFTWARE
    dismiss(line.channel, code)


def enlist(arguments: Sequence[str]) -> Line:
    """Arm the guards and open the line to the supervisor named on the command line."""
    parser = argparse.ArgumentParser()
    for name in ("fd", "board", "stacks", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args(arguments)
    guards.die_with_parent(options.parent)
    guards.be_killed_first()
    for inherited in (options.fd, options.board, options.stacks):
        os.set_inheritable(inherited, False)
    board = Board(options.board)
    board.enter("import", None)
    channel = Channel(options.fd)
    channel.start()
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR2, file=options.stacks, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: channel.remind({"do": "exit"}))
    return Line(channel, board, options.report)


def dismiss(channel: Channel, code: int) -> None:
    """End the process after the last message is sent; library threads and device clean-up are left to the kernel."""
    channel.finish(timeout_s=_FLUSH_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
