"""What `vocable doctor` looks at on this machine and in the workspace, without the service. One function a check.

Called by the command line, in one thread, in order. Nothing here changes anything, and nothing can hang: what asks a
driver does so in a process that is given up on after a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from daemon import gpu
from daemon.paths import SOCKET_PATH_BYTES, Workspace, find_socket, folder_fault, socket_path
from daemon.watch.mounts import remote_file_system
from daemon.worker.footprint import NAME as FOOTPRINT
from engine.text import escape

Verdict = Literal["ok", "note", "warning", "fault"]

LITTLE_ROOM = 1 << 30
SOME_ROOM = 5 << 30
FEW_FILES = 10_000


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    verdict: Verdict
    text: str
    advice: str = ""


def check_machine(workspace: Workspace, environ: Mapping[str, str]) -> list[Finding]:
    """All checks of this file, in the order of the report."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        lambda: check_folders(workspace),
        lambda: [check_room(workspace.root)],
        lambda: [check_file_system(workspace.root)],
        lambda: [check_socket(workspace, environ)],
        lambda: [check_inotify(workspace)],
        lambda: [check_sqlite(sqlite3.sqlite_version)],
        lambda: [check_linger(environ)],
        lambda: check_gpu(workspace),
    )
    return [finding for check in checks for finding in check()]


def check_folders(workspace: Workspace) -> list[Finding]:
    """Whether everything can be written that has to be."""
    if not workspace.root.exists():
        parent = next(folder for folder in workspace.root.parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return [Finding("workspace", "note", f"{_show(workspace.root)} is made with the first command")]
        return [Finding("workspace", "fault", f"{_show(parent)} cannot be written to", "Choose another --workspace.")]
    folders = [workspace.root, *_watched(workspace)]
    folders += [workspace.runs, workspace.cache, workspace.trash, workspace.state]
    closed = [folder for folder in folders if folder.exists() and not _is_usable(folder)]
    findings = [
        Finding("workspace", "fault", f"{_show(folder)} cannot be written to", "Correct its owner or permissions.")
        for folder in closed
    ]
    fault = folder_fault(workspace.state) if workspace.state.is_dir() else ""
    if fault:
        advice = f"chmod 700 {_show(workspace.state)}"
        findings.append(Finding("workspace", "warning", f"{_show(workspace.state)} {fault}", advice))
    return findings or [Finding("workspace", "ok", f"{_show(workspace.root)} can be written to")]


def check_room(root: Path) -> Finding:
    """Bytes and inodes that are free where the workspace is."""
    place = _existing(root)
    free = shutil.disk_usage(place).free
    status = os.statvfs(place)
    room = f"{free / (1 << 30):,.1f} GiB free"
    if free < LITTLE_ROOM:
        return Finding("disk", "fault", f"only {room}", "Make room: empty trash/, remove old runs and cache/.")
    if status.f_files and status.f_favail < FEW_FILES:
        text = f"{room}, but only {status.f_favail:,} more files are possible"
        return Finding("disk", "fault", text, "Remove files that are not needed: the file system is out of inodes.")
    if free < SOME_ROOM:
        return Finding("disk", "warning", f"only {room}", "A model takes 2 to 7 GiB; make room in time.")
    return Finding("disk", "ok", room)


def check_file_system(root: Path) -> Finding:
    """Locks and SQLite want a local disk."""
    kind = remote_file_system(_existing(root))
    if kind:
        text = f"the workspace, or a folder in it, is on {kind}"
        return Finding(
            "file system", "warning", text, "Keep the workspace on a local disk; pictures may lie elsewhere."
        )
    return Finding("file system", "ok", "local")


def check_socket(workspace: Workspace, environ: Mapping[str, str]) -> Finding:
    """Where the socket lies, and whether only its user can put one there."""
    path = find_socket(workspace, environ)
    usual = workspace.state / path.name
    if path == workspace.shared_socket:
        return Finding("socket", "note", f"{_show(path)} is shared with a group")
    fault = folder_fault(path.parent) if path.parent.exists() else ""
    if fault and path.parent != workspace.state:
        return Finding("socket", "fault", f"its folder {_show(path.parent)} {fault}", "Remove that folder.")
    if socket_path(workspace, environ) != usual:
        length = len(os.fsencode(usual))
        text = f"{_show(path)}, since the workspace's own path would have {length} of {SOCKET_PATH_BYTES} bytes"
        return Finding("socket", "note", text)
    return Finding("socket", "ok", _show(path))


def check_inotify(workspace: Workspace, proc: Path = Path("/proc")) -> Finding:
    """Limits of this user for watching folders, against what is taken and what the workspace needs."""
    try:
        limits = {key: int((proc / f"sys/fs/inotify/max_user_{key}").read_text()) for key in ("watches", "instances")}
    except (OSError, ValueError):
        return Finding("inotify", "note", "this system tells no limits; folders are looked through now and then")
    taken = _count_inotify(proc)
    needed = sum(1 for root in _watched(workspace) for _ in os.walk(root))
    text = ", ".join(f"{taken[key]:,} of {limits[key]:,} {key} taken" for key in limits)
    for key, more in (("watches", needed), ("instances", 8)):
        if taken[key] + more > limits[key]:
            advice = f"sysctl fs.inotify.max_user_{key}={4 * limits[key]}; until then folders are polled."
            return Finding("inotify", "warning", f"{text}; {more:,} more {key} may be needed", advice)
    return Finding("inotify", "ok", text)


def check_sqlite(text: str) -> Finding:
    """The WAL-reset fault (3.7.0 to 3.51.2 and 3.52.0; mended in 3.51.3, 3.53.0, 3.44.6 and 3.50.7, sqlite.org)."""
    number = tuple(int(part) for part in text.split("."))
    mended = number >= (3, 53, 0) or any(low <= number < high for low, high in _MENDED)
    if mended or number < (3, 7, 0):
        return Finding("SQLite", "ok", text)
    said = f"{text} can lose what was written when several programs have a database open; the service is the only one"
    return Finding("SQLite", "note", said, "Open state/vocable.db with nothing else while the service runs.")


_MENDED = (((3, 44, 6), (3, 45, 0)), ((3, 50, 7), (3, 51, 0)), ((3, 51, 3), (3, 52, 0)))


def check_linger(environ: Mapping[str, str], root: Path = Path("/")) -> Finding:
    """Whether a service of this user outlives the user's last session."""
    if not (root / "run/systemd/system").is_dir():
        return Finding("linger", "note", "systemd does not run here; a service started by `vocable` goes on by itself")
    user = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0 or (root / "var/lib/systemd/linger" / user).exists():
        return Finding("linger", "ok", f"services of {user} go on after log-out")
    unit = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user/vocable.service"
    advice = "loginctl enable-linger"
    if unit.exists():
        return Finding("linger", "warning", "the user unit ends with your last session", advice)
    return Finding("linger", "note", "off; a user unit would end with your last session", advice)


def check_gpu(workspace: Workspace, tool: Sequence[str] = (), devices: Path = Path("/dev")) -> list[Finding]:
    """The cards, their driver, and who else holds their memory.

    Args:
        tool: how nvidia-smi is called, if it is not to be looked for.
    """
    found = shutil.which("nvidia-smi")
    command = [*tool] or ([found] if found else [])
    if not command:
        return [_without_tool(devices)]
    try:
        cards = gpu.list_cards(command)
        holders = gpu.list_holders(command)
    except gpu.Silent:
        text = f"the driver does not answer within {gpu.TIMEOUT_S:g} s"
        return [Finding("GPU", "fault", text, "Look into dmesg for lines with NVRM or Xid; a restart may be needed.")]
    except gpu.Refused as refusal:
        text = f"nvidia-smi fails: {escape(str(refusal), 300)}"
        return [Finding("GPU", "warning", text, "Runs go to the CPU until that is mended.")]
    findings = []
    for card in cards:
        findings.append(Finding("GPU", "ok", _describe_card(card)))
        findings += [_judge_holder(holder, workspace) for holder in holders if holder.card == card.uuid]
    if cards and _torch_version().endswith("+cpu"):
        text = f"torch {_torch_version()} cannot use it"
        findings.append(Finding("GPU", "warning", text, "Install a torch with CUDA into Vocable's environment."))
    return findings or [Finding("GPU", "note", "none; runs go to the CPU")]


def _describe_card(card: gpu.Card) -> str:
    room = f", {gpu.show_size(card.free_bytes)} of {gpu.show_size(card.total_bytes)} free" if card.total_bytes else ""
    return escape(f"{card.name}, driver {card.driver}{room}", 200)


def _judge_holder(holder: gpu.Holder, workspace: Workspace) -> Finding:
    """A process on the card: the workspace's own worker, or one that takes room from it."""
    if holder.pid == _own_worker(workspace):
        own = replace(holder, name="the worker of this workspace", user="")
        return Finding("GPU", "ok", escape(gpu.describe_holder(own), 300))
    text = escape(gpu.describe_holder(holder), 300)
    advice = "A run does not wait for it: one that needs more than is left fails with memory.full. End it first."
    return Finding("GPU", "warning", text, advice)


def _own_worker(workspace: Workspace) -> int | None:
    """Process id of the worker that the workspace's service started last."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((workspace.state / FOOTPRINT).read_bytes())["pid"])
    return None


def _without_tool(devices: Path) -> Finding:
    if any(devices.glob("nvidia[0-9]*")):
        text = "there is an NVIDIA card, but no nvidia-smi to ask"
        return Finding("GPU", "note", text, "Install the driver's tools to see more here.")
    if (devices / "kfd").exists():
        is_usable = os.access(devices / "kfd", os.R_OK | os.W_OK)
        advice = "" if is_usable else "Add this user to the group render."
        return Finding("GPU", "ok" if is_usable else "warning", "an AMD card (/dev/kfd)", advice)
    return Finding("GPU", "note", "none; runs go to the CPU")


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _count_inotify(proc: Path) -> dict[str, int]:
    """Watches and instances of all processes of this user that can be looked into."""
    taken = {"watches": 0, "instances": 0}
    for text in _descriptors(proc):
        watches = len(re.findall(r"^inotify wd:", text, re.MULTILINE))
        taken["watches"] += watches
        taken["instances"] += 1 if watches else 0
    return taken


def _descriptors(proc: Path) -> Iterator[str]:
    for process in proc.glob("[0-9]*"):
        try:
            if process.stat().st_uid != os.getuid():
                continue
            handles = [handle for handle in os.listdir(process / "fd") if _is_inotify(process / "fd" / handle)]
        except OSError:
            continue
        for handle in handles:
            with contextlib.suppress(OSError):
                yield (process / "fdinfo" / handle).read_text()


def _is_inotify(link: Path) -> bool:
    try:
        return "inotify" in os.readlink(link)
    except OSError:
        return False


def _watched(workspace: Workspace) -> tuple[Path, ...]:
    folders = (workspace.models, workspace.embeddings, workspace.hypernetworks, workspace.datasets)
    return (*folders, workspace.templates, workspace.inbox)


def _is_usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _show(path: Path) -> str:
    return escape(str(path), 300)
