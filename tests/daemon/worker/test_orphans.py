"""A worker never outlives its supervisor, whatever it is busy with when the supervisor is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from daemon.worker.supervise import Worker
from tests.daemon.worker.conftest import STANDIN

async def main():
    loop = asyncio.get_running_loop()
    def tell(message):
        print(message["type"], worker.pid, flush=True)
    worker = Worker(log=Path(sys.argv[1]), on_message=tell, on_exit=print, command=STANDIN)
    await worker.start({})
    if sys.argv[2]:
        worker.send({"do": sys.argv[2]})
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("busy", "sign"), [("", "ready"), ("spin", "spinning"), ("hold", "holding"), ("ignore-term", "ignoring")]
)
def test_a_worker_is_gone_two_seconds_after_its_supervisor_was_killed(tmp_path, busy: str, sign: str) -> None:
    arguments = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "worker.log"), busy]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        for line in supervisor.stdout:
            kind, pid = line.split()
            if kind == sign:
                break
        worker = os.pidfd_open(int(pid))
        supervisor.send_signal(signal.SIGKILL)
        gone, _, _ = select.select([worker], [], [], 2)
        os.close(worker)
        if not gone:
            os.kill(int(pid), signal.SIGKILL)
        assert gone


def test_a_worker_whose_parent_is_already_another_ends_at_once() -> None:
    ours, theirs = os.pipe()
    code = "import sys; from daemon.worker.main import enlist; enlist(sys.argv[1:]); print('enlisted')"
    arguments = [sys.executable, "-c", code, "--fd", str(theirs), "--parent", "1"]
    result = subprocess.run(arguments, pass_fds=(theirs,), capture_output=True, timeout=20)
    os.close(ours)
    os.close(theirs)
    assert result.returncode == os.EX_UNAVAILABLE
    assert result.stdout == b""
