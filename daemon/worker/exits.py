"""How a worker ended, in words: exit codes, signals, its report, the kernel's memory killer. Called by supervise."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from daemon.worker.board import NOWHERE, Mark
from daemon.worker.crashes import CrashReport

ExitKind = Literal[
    "asked", "exit", "error", "device", "memory", "native", "killed", "garbled", "hung", "wedged", "refused"
]
"""asked: it was told to end and did. exit: it left by itself without a word, with any code, 0 included. error: an
exception ended it. device: the device failed under it. memory: memory ran out. native: a fault in compiled code.
killed: a signal from outside. garbled: what it sent made no sense. hung: it gave no sign of life, or did not get on.
wedged: it cannot be killed, so it still has its device; a further end follows when it goes after all.
refused: the system started no process."""

_NATIVE = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
"""Signals that a process brings upon itself by a fault in compiled code."""

_PLACES = {
    "import": "while it started",
    "loading": "while loading a model",
    "encoding": "while encoding pictures",
    "preview": "while making a preview",
    "saving": "while saving",
    "job": "during a job",
}

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class WorkerExit:
    """The end of one worker process."""

    kind: ExitKind
    code: int
    """Exit code or number of the signal."""
    title: str
    """One sentence for people, terminal-safe."""
    hint: str = ""
    """Where more is written, or what to do; terminal-safe."""
    mark: Mark = NOWHERE
    """What it was doing."""


def describe_exit(
    returncode: int, *, last_words: str, memory_kills: int, mark: Mark, report: CrashReport | None
) -> WorkerExit:
    """Say what an unexpected end was.

    Args:
        returncode: as subprocesses report it, negative for a signal.
        last_words: the last line the process wrote, escaped; may be empty.
        memory_kills: how many processes the kernel killed for want of memory during its life.
        mark: what it was doing.
        report: what it wrote of the exception that ended it.
    """
    if report and returncode >= 0:
        return _describe_report(report, returncode, mark)
    said = f" Its last words: {last_words}" if last_words else ""
    where = describe_place(mark)
    if returncode >= 0:
        return WorkerExit(
            "exit", returncode, f"The worker ended by itself with exit code {returncode}.{said}", "", mark
        )
    number = -returncode
    name = signal_name(number)
    if number in _NATIVE:
        return WorkerExit("native", number, f"The worker crashed in native code ({name}){where}.{said}", "", mark)
    if number == signal.SIGKILL and memory_kills > 0:
        title = f"The worker was killed ({name}){where}, probably by the kernel because memory ran out."
        hint = "Free memory, or lower train.batch_size or the size of the pictures."
        return WorkerExit("memory", number, title, hint, mark)
    return WorkerExit("killed", number, f"The worker was killed from outside ({name}){where}.", "", mark)


def describe_place(mark: Mark) -> str:
    """Where in its work a worker was, to be put behind a statement; empty when it had nothing to do."""
    if mark.phase in ("first step", "step"):
        return " in a step" if mark.step is None else f" in step {mark.step + 1}"
    done = "" if mark.step is None else f", {mark.step} steps done"
    return f" {_PLACES[mark.phase]}{done}" if mark.phase in _PLACES else ""


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def count_memory_kills() -> int:
    """Processes of this control group that the kernel has killed for want of memory; where the system has no such
    count, those of the whole machine; 0 where nobody says. Only differences mean something."""
    group = _own_group()
    count = _read_count(group / "memory.events") if group else None
    if count is None:
        count = _read_count(Path("/proc/vmstat"))
    return count or 0


def _describe_report(report: CrashReport, code: int, mark: Mark) -> WorkerExit:
    said = f"{report.type}: {report.message}" if report.message else report.type
    where = describe_place(Mark(report.phase, report.step, 0))
    hint = f"The traceback is in {report.traceback}."
    if report.is_device:
        return WorkerExit("device", code, f"The device failed{where}: {report.message}", hint, mark)
    if report.type == "MemoryError":
        return WorkerExit("memory", code, f"Memory ran out in the worker{where} ({said}).", hint, mark)
    return WorkerExit("error", code, f"The worker ended with an error{where}: {said}", hint, mark)


def _own_group() -> Path | None:
    """The folder of this process's control group (version 2), which its workers share."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return _CGROUPS / line.removeprefix("0::/")
    return None


def _read_count(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
