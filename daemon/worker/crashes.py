"""What is kept of a worker's death in `state/crashes/`: its own report and traceback, and the stacks of a hung one.

The worker writes its report when an exception ends it; the supervisor saves the stacks, and reads the report to tell
what happened. The newest crashes are kept.
"""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon.worker.board import Mark
from engine.errors import VocableError
from engine.files import write_atomically
from engine.text import escape

FOLDER = "crashes"
KEPT = 40
"""Files; a crash has at most two."""

_MAX_REPORT = 1 << 16
_MAX_STACKS = 1 << 20


class DeviceLost(Exception):
    """The device does not answer this process any more; only a fresh process can use it again."""


@dataclass(frozen=True)
class CrashReport:
    """The exception that ended a worker."""

    type: str
    message: str
    phase: str
    step: int | None
    traceback: str
    """Path of the file with the traceback."""
    is_device: bool = False
    """The device does not answer any more; memory is not what lacked."""


def crash_path(folder: Path, number: int) -> Path:
    """Where the report of a worker goes that is started now, the `number`-th of its service; nothing is written."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    return folder / f"{stamp}-{number}.json"


def write_report(path: Path, error: BaseException, mark: Mark) -> None:
    """Keep the exception that ends this process. A disk that takes nothing leaves the traceback in the log."""
    details = path.with_suffix(".traceback.txt")
    message = escape(str(error).strip().partition("\n")[0], 500)
    report = CrashReport(
        type(error).__name__, message, mark.phase, mark.step, str(details), isinstance(error, DeviceLost)
    )
    with contextlib.suppress(VocableError):
        write_atomically(details, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
        write_atomically(path, json.dumps(asdict(report)).encode())


def read_report(path: Path) -> CrashReport | None:
    """The report of a worker that ended; None when it left none, or none that can be read."""
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_REPORT))
        step = values["step"]
        return CrashReport(
            type=escape(str(values["type"]), 100),
            message=escape(str(values["message"]), 500),
            phase=escape(str(values["phase"]), 40),
            step=None if step is None else int(step),
            traceback=escape(str(values["traceback"])),
            is_device=bool(values["is_device"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_stacks(path: Path, stacks: bytes) -> Path | None:
    """Keep the stacks of a hung worker's threads beside where its report would be; None when there are none."""
    target = path.with_suffix(".stacks.txt")
    if not stacks:
        return None
    try:
        write_atomically(target, stacks[:_MAX_STACKS])
    except VocableError:
        return None
    return target


def drop_old_crashes(folder: Path) -> None:
    """Delete all but the newest files; their names sort by time."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir())[:-KEPT]:
            path.unlink()
