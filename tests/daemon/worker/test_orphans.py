"""A worker never outlives its supervisor, whatever it is busy with when the supervisor is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from daemon.worker.supervise import COMMAND

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from daemon.worker.supervise import Worker
from engine.models.starter.sample import TRAIN_DIR
from tests.daemon.worker.conftest import STANDIN

async def main():
    loop = asyncio.get_running_loop()
    def tell(message):
        print(message["type"], worker.pid, flush=True)
    command = sys.argv[3:] or STANDIN
    worker = Worker(log=Path(sys.argv[1]), on_message=tell, on_exit=print, command=command)
    await worker.start({"models": [], "datasets": [], "templates": [], "latents": sys.argv[1] + ".latents"})
    print("spawned", worker.pid, flush=True)
    if sys.argv[2] == "load":
        recipe = {"name": "x", "data": {"folder": str(TRAIN_DIR)}}
        worker.send({"do": "train", "run": "r", "recipe": recipe, "folder": sys.argv[1] + ".run", "destination": ""})
    elif sys.argv[2]:
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
        kill_and_watch(supervisor, int(pid))


def test_a_worker_whose_parent_is_already_another_ends_at_once() -> None:
    code = "import sys; from daemon.worker.main import enlist; enlist(sys.argv[1:]); print('enlisted')"
    arguments = [sys.executable, "-c", code, "--fd=0", "--board=0", "--stacks=0", "--report=/x", "--parent=1"]
    result = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert (result.returncode, result.stdout) == (os.EX_UNAVAILABLE, b"")


LATE = "import sys, time; time.sleep(0.3); from tests.daemon.worker.standin import main; main()"
"""A worker that is killed nowhere near its first line: its guards are armed after its supervisor is gone."""


@pytest.mark.parametrize("command", [(sys.executable, "-c", LATE), COMMAND], ids=["before-guards", "importing"])
def test_a_worker_that_was_just_spawned_goes_with_its_supervisor(tmp_path, command: tuple[str, ...]) -> None:
    arguments = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "worker.log"), "", *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        kind, pid = supervisor.stdout.readline().split()
        assert kind == "spawned"
        kill_and_watch(supervisor, int(pid))


@pytest.mark.slow
def test_a_worker_that_loads_a_model_goes_with_its_supervisor(tmp_path) -> None:
    arguments = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "worker.log"), "load", *COMMAND]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        for line in supervisor.stdout:
            kind, pid = line.split()
            if kind == "event":
                break
        kill_and_watch(supervisor, int(pid))


def kill_and_watch(supervisor: subprocess.Popen[str], pid: int) -> None:
    """Kill the supervisor; its worker must be gone two seconds later."""
    worker = os.pidfd_open(pid)
    supervisor.send_signal(signal.SIGKILL)
    gone, _, _ = select.select([worker], [], [], 2)
    os.close(worker)
    if not gone:
        os.kill(pid, signal.SIGKILL)
    assert gone
