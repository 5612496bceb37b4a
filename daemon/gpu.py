"""What NVIDIA's driver says of its cards, and of the processes that hold their memory.

Called by the doctor, and by the service in threads of their own: a driver that hangs also hangs those who ask it. It is
asked through nvidia-smi, in a process that is given up on after a time. Names of processes are not yet escaped.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 10.0
_FORMAT = "--format=csv,noheader,nounits"
_MIB = 1 << 20


class Silent(Exception):
    """The driver does not answer in time."""


class Refused(Exception):
    """nvidia-smi failed; the text is what it said, not yet escaped."""


@dataclass(frozen=True)
class Card:
    uuid: str
    name: str
    driver: str
    total_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True)
class Holder:
    """A process that computes on a card."""

    card: str
    """UUID."""
    pid: int
    """As the driver counts; in a container that may be another machine's number."""
    name: str
    """Its program; empty when the driver does not know."""
    user: str
    """Empty when the process cannot be seen from here."""
    held_bytes: int | None


def list_cards(tool: Sequence[str]) -> list[Card]:
    """The cards, in the driver's order.

    Args:
        tool: how nvidia-smi is called.

    Raises:
        Silent, Refused.
    """
    rows = _ask(tool, "--query-gpu=uuid,name,driver_version,memory.total,memory.free")
    return [Card(row[0], ", ".join(row[1:-3]), row[-3], *map(_read_bytes, row[-2:])) for row in rows if len(row) >= 5]


def list_holders(tool: Sequence[str]) -> list[Holder]:
    """Processes that compute on any card; whatever only draws on one is not told. Raises Silent, Refused."""
    holders = []
    for row in _ask(tool, "--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory"):
        if len(row) >= 4 and row[1].isdecimal():
            pid, name = int(row[1]), ", ".join(row[2:-1])
            known = "" if name.startswith("[") else Path(name).name
            holders.append(Holder(row[0], pid, known, _find_user(pid), _read_bytes(row[-1])))
    return holders


def describe_holder(holder: Holder) -> str:
    """A process with its user and what it holds, in words."""
    user = f" of {holder.user}" if holder.user else ""
    held = "memory that the driver does not tell" if holder.held_bytes is None else show_size(holder.held_bytes)
    return f"{holder.name or 'a process that cannot be seen from here'}{user} (pid {holder.pid}) holds {held}"


def show_size(size: int | None) -> str:
    return "?" if size is None else f"{size / (1 << 30):,.1f} GiB"


def run_bounded(command: Sequence[str], timeout_s: float) -> tuple[int, str] | None:
    """Run a program and return its exit code and what it said; None when it had to be given up on.

    A process that the kernel holds fast ends at no signal, so its end is not waited for.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return 127, error.strerror or str(error)
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout:
            process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        return None
    return process.returncode, said.decode(errors="replace")


def _ask(tool: Sequence[str], query: str) -> list[list[str]]:
    answer = run_bounded([*tool, query, _FORMAT], TIMEOUT_S)
    if answer is None:
        raise Silent
    code, said = answer
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if code != 0:
        raise Refused(lines[0] if lines else f"exit code {code}")
    return [line.split(", ") for line in lines]


def _read_bytes(mebibytes: str) -> int | None:
    """The driver writes [N/A] for what it does not tell."""
    return int(mebibytes) * _MIB if mebibytes.isdecimal() else None


def _find_user(pid: int) -> str:
    try:
        return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    except (OSError, KeyError):
        return ""
