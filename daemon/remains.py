"""Removes what killed processes left behind: temporaries, and folders of runs that never came into the history.

Called by the queue before it starts a worker, when nobody but the service itself writes in these folders. The
invariant: only what bears the name of a temporary of ours, or is empty, is removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from daemon.paths import Workspace
from daemon.runs import Run
from engine.files import remove_remains
from engine.text import escape

_log = logging.getLogger(__name__)


def sweep(workspace: Workspace, runs: Collection[Run]) -> None:
    """Tidy the workspace. Runs in a thread, while no worker lives and no run is being made.

    Args:
        runs: all runs of the history.
    """
    known = {Path(run.view.folder).parts[-2:] for run in runs}
    begun = [Path(run.view.folder) for run in runs if run.view.started_at and not _is_complete(run)]
    removed = [path for folder in _folders(workspace, begun) for path in remove_remains(folder)]
    removed += _remove_unknown(workspace.runs, known)
    if removed:
        _log.info("removed what a killed process left: %s", escape(", ".join(map(str, removed)), 2000))


def _is_complete(run: Run) -> bool:
    """Whether its worker wrote the last of it, and was not lost."""
    return run.view.state in ("finished", "stopped")


def _folders(workspace: Workspace, runs: Iterable[Path]) -> Iterator[Path]:
    yield from (workspace.root, workspace.embeddings, workspace.hypernetworks)
    yield from (workspace.inbox / "refused", workspace.trash)
    for root in (workspace.state, workspace.cache, *runs):
        yield from (Path(folder) for folder, _, _ in os.walk(root))


def _remove_unknown(runs: Path, known: Collection[tuple[str, ...]]) -> list[Path]:
    """Remove empty folders that were made for runs which then did not come to be.

    Args:
        known: DATE and NAME-ID of each run; one that is being deleted belongs to trash/ before it is there.
    """
    removed = []
    with contextlib.suppress(OSError):
        for folder in runs.glob("*/[!.]*"):
            if folder.parts[-2:] not in known:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    removed.append(folder)
    return removed
