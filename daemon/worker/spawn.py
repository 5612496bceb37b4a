"""How a worker process is started: command, environment, and the descriptors that it inherits. Called by supervise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMAND = (sys.executable, "-P", "-m", "daemon.worker.main")
"""-P: a file called torch.py in the folder where the service was started is not imported."""

ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What every worker runs with: no network, no bars, results that can be repeated."""

THREADS = {"GOMP_SPINCOUNT": "1000"}
"""OpenMP's default lets threads spin at each barrier; as soon as the cores are shared with anybody, a step takes ten
to thirty times as long. What the user sets goes before this."""


def spawn(command: Sequence[str], *, fd: int, board: int, stacks: int, report: Path) -> subprocess.Popen[bytes]:
    """Start a worker in a session of its own; its output comes over a pipe.

    Args:
        fd: the worker's end of the connection.
        board, stacks: shared memory for its phase, and for the stacks of its threads.
        report: file that it writes when an exception ends it.

    Raises:
        OSError: the system refuses a process.
    """
    options = {"fd": fd, "board": board, "stacks": stacks, "parent": os.getpid(), "report": report}
    return subprocess.Popen(
        [*command, *(f"--{name}={value}" for name, value in options.items())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(os.environ),
        pass_fds=(fd, board, stacks),
        start_new_session=True,
        bufsize=0,
    )


def _environment(base: Mapping[str, str]) -> dict[str, str]:
    return {**THREADS, **base, **ENVIRONMENT}
