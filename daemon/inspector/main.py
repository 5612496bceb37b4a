"""The fork server: a process that has imported the readers and makes one child for each question, then reaps it.

Started by daemon.inspector.inspector as `python -I -m daemon.inspector.main --parent PID`, with a SOCK_SEQPACKET
control socket as its standard input. The invariant: no byte of a foreign file ever comes into this process; a child
gets its question over a socket of its own, which the supervisor sends along.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import selectors
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

from daemon.inspector import child
from daemon.worker import guards

MAX_REQUEST = 4096
"""Longest control message in bytes."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    guards.die_with_parent(options.parent)
    guards.renounce_privileges()
    guards.be_killed_first()
    child.warm_up()
    gc.collect()
    gc.freeze()  # a child's collections leave the pages alone that it shares with this process
    ForkServer(socket.socket(fileno=0)).run()


@dataclass
class _Child:
    number: int
    """What the supervisor calls it."""
    pid: int
    pidfd: int
    deadline: float
    """Monotonic time when it is killed."""
    late: bool = False


class ForkServer:
    """Forks on request, kills what takes too long or is not wanted any more, and tells how each child ended.

    From the supervisor: `{"do": "fork", "id", "wall_s", "size"}` with one descriptor, `{"do": "kill", "id"}`. To it:
    `{"id", "code", "late"}` when a child is reaped, `code` negative for a signal; `{"id", "refused"}` when there was
    no child to be had.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the supervisor closes its end; children die with this process."""
        while True:
            for key, _ in self._selector.select(self._patience_s()):
                if key.fileobj is not self._control:
                    self._reap(key.data)
                elif not self._take():
                    return
            for overdue in self._children.values():
                if time.monotonic() >= overdue.deadline and not overdue.late:
                    overdue.late = True
                    self._kill(overdue)

    def _patience_s(self) -> float | None:
        due = min((running.deadline for running in self._children.values() if not running.late), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _take(self) -> bool:
        """Take one control message; False when the supervisor is gone."""
        data, descriptors, _, _ = socket.recv_fds(self._control, MAX_REQUEST, 1)
        if not data:
            return False
        request = json.loads(data)
        if request["do"] == "fork":
            self._fork(request["id"], request["wall_s"], request["size"], descriptors[0])
        else:
            for running in self._children.values():
                if running.number == request["id"]:
                    self._kill(running)
        return True

    def _fork(self, number: int, wall_s: float, size: int, connection: int) -> None:
        own_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(connection)
            self._tell({"id": number, "refused": os.strerror(error.errno or 0)})
            return
        if pid == 0:
            child.serve(connection, own_pid, size)
        os.close(connection)
        started = _Child(number, pid, os.pidfd_open(pid), time.monotonic() + wall_s)
        self._children[pid] = started
        self._selector.register(started.pidfd, selectors.EVENT_READ, started)

    def _kill(self, running: _Child) -> None:
        signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)

    def _reap(self, ended: _Child) -> None:
        _, status = os.waitpid(ended.pid, 0)
        self._selector.unregister(ended.pidfd)
        os.close(ended.pidfd)
        del self._children[ended.pid]
        self._tell({"id": ended.number, "code": os.waitstatus_to_exitcode(status), "late": ended.late})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            os._exit(os.EX_UNAVAILABLE)  # the supervisor is gone


if __name__ == "__main__":
    main()
