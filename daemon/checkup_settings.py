"""What `vocable doctor` says of `vocable.toml`: whether it can be used, and whether the folders it names are there.

Called by the command line, without the service, which would not start with faulty settings. Nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from daemon.checkup import Finding
from daemon.paths import Workspace
from daemon.settings import read_settings
from engine.errors import VocableError
from engine.text import escape


def check_settings(workspace: Workspace) -> list[Finding]:
    """A fault when the service would refuse the file or could put no run anywhere, warnings for folders not there."""
    path = workspace.settings
    try:
        paths = read_settings(path).paths
    except VocableError as error:
        return [Finding("settings", "fault", error.title.rstrip("."), error.hint)]
    findings = _check_runs(workspace.root, paths.runs) if paths.runs else []
    for name, folders in (("models", paths.models), ("datasets", paths.datasets), ("templates", paths.templates)):
        findings += _check_sources(workspace.root, f"paths.{name}", folders)
    if not findings and path.exists():
        return [Finding("settings", "ok", f"{path.name} can be used")]
    return findings


def _check_runs(root: Path, text: str) -> list[Finding]:
    folder = root / Path(text).expanduser()
    nearest = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return []
    advice = "Correct its owner or permissions, or name another folder; it counts from the next start of the service."
    return [Finding("settings", "fault", f"paths.runs: {_show(nearest)} cannot be written to", advice)]


def _check_sources(root: Path, name: str, folders: Sequence[str]) -> list[Finding]:
    missing = [folder for folder in (root / Path(text).expanduser() for text in folders) if not folder.is_dir()]
    return [Finding("settings", "warning", f"{name}: there is no folder {_show(folder)}") for folder in missing]


def _show(path: Path) -> str:
    return escape(str(path), 300)
