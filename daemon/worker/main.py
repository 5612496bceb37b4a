"""The worker process: `python -m daemon.worker.main --fd N --parent PID`, started by daemon.worker.supervise only.

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

from daemon.worker import guards
from daemon.worker.channel import Channel

_FLUSH_S = 5.0


def main() -> None:
    channel = enlist(sys.argv[1:])
    try:
        from daemon.worker.desk import Desk  # imports torch, which takes seconds; the heart beats meanwhile

        code = Desk(channel).serve()
    except Exception:
        traceback.print_exc()
        code = 1
    dismiss(channel, code)


def enlist(arguments: Sequence[str]) -> Channel:
    """Arm the guards and open the channel to the supervisor named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    guards.die_with_parent(options.parent)
    guards.be_killed_first()
    os.set_inheritable(options.fd, False)
    channel = Channel(options.fd)
    channel.start()
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: channel.remind({"do": "exit"}))
    return channel


def dismiss(channel: Channel, code: int) -> None:
    """End the process after the last message is sent; library threads and device clean-up are left to the kernel."""
    channel.finish(timeout_s=_FLUSH_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
