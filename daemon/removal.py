"""Runs that are deleted, and taken back: their folders go to trash/runs/ and from there. Part of the queue.

Where trash/ is a disk of its own a folder has to be copied, which may take minutes: the queue's lock is held only while
the history is changed. The invariant: the history says where a folder belongs, and whatever is killed on the way, the
whole folder is there or at the other place, from where the next start of the service fetches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from daemon.ledger import Ledger
from daemon.logs import bind_run
from daemon.paths import Workspace
from daemon.protocol.states import ENDED
from daemon.runs import Run, is_removed
from daemon.trash import is_fetchable, move_folder, put_back
from engine.errors import VocableError

_log = logging.getLogger(__name__)


class Removal:
    """Moves runs to trash/ and back, one after the other.

    Args:
        lock: the queue's; held while a run is taken out of the table or put into it.
        check_open: raises VocableError when the service stops.
    """

    def __init__(
        self, workspace: Workspace, ledger: Ledger, *, lock: asyncio.Lock, check_open: Callable[[], None]
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._lock = lock
        self._check_open = check_open
        self._moving = asyncio.Lock()
        self._stopping = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Complete, in the background, what an earlier service began."""
        self._task = asyncio.create_task(self._complete())

    async def close(self) -> None:
        """Break off what is being moved, which then stays where it was."""
        self._stopping.set()
        if self._task:
            await asyncio.gather(self._task, return_exceptions=True)
        async with self._moving:
            pass

    async def remove(self, reference: str) -> Run:
        """Move a run that ended to trash/, with its folder; its word stays in the embeddings folder.

        Raises:
            VocableError: `run.unknown`, `run.ambiguous`; `run.state` for one that has not ended; `disk.*`,
                `history.failed`, `service.stopping`, and then nothing changed.
        """
        async with self._moving:
            async with self._lock:
                self._check()
                run = self._ledger.runs.find(reference)
                if run.view.state not in ENDED:
                    title = f"Run {run.id} is {run.view.state}; only a run that ended can be deleted."
                    raise VocableError("run.state", title, f"Stop it first: vocable stop {run.id}")
                here, there = self._places(run)
                await self._save_folder(run, there)
                self._ledger.runs.place(run)
                self._ledger.announce_removal(run)
            try:
                await asyncio.to_thread(move_folder, here, there, self._stopping)
            except VocableError:
                async with self._lock:
                    await self._take_back(run, here)
                    self._ledger.runs.place(run)
                    self._ledger.announce(run)
                raise
            bind_run(_log, run.id).info("deleted; its folder is %s", there)
            return run

    async def restore(self, reference: str) -> Run:
        """Take a run back out of trash/.

        Raises:
            VocableError: `run.unknown`, `run.ambiguous`; `file.absent` when its folder is not in trash/ any more;
                `disk.*`, `history.failed`, `service.stopping`, and then nothing changed.
        """
        async with self._moving:
            async with self._lock:
                self._check()
                run = self._ledger.runs.find_removed(reference)
                here, there = self._places(run)
                if not there.is_dir() and not is_fetchable(here):
                    title = f"The folder of run {run.id} is not in trash/ any more."
                    raise VocableError("file.absent", title, f"It was {here}.")
                await self._save_folder(run, there)
            try:
                await asyncio.to_thread(move_folder, here, there, self._stopping)
            except VocableError:
                async with self._lock:
                    await self._take_back(run, here)
                raise
            async with self._lock:
                self._ledger.runs.place(run)
                self._ledger.announce(run)
            bind_run(_log, run.id).info("taken back out of trash/")
            return run

    def _check(self) -> None:
        self._check_open()
        self._ledger.check_writable()

    def _places(self, run: Run) -> tuple[Path, Path]:
        """Where the run's folder belongs, and the other place that it could have."""
        here = Path(run.view.folder)
        root = self._workspace.runs if is_removed(run.view) else self._workspace.trash / "runs"
        return here, root / here.parent.name / here.name

    async def _save_folder(self, run: Run, folder: Path) -> None:
        before, run.view.folder = run.view.folder, str(folder)
        try:
            await self._ledger.history.save([run])
        except VocableError:
            run.view.folder = before
            raise

    async def _take_back(self, run: Run, folder: Path) -> None:
        """The folder did not get away. A history that cannot be told so now is told with a later save."""
        try:
            await self._save_folder(run, folder)
        except VocableError:
            run.view.folder = str(folder)
            self._ledger.note(run)

    async def _complete(self) -> None:
        """Move what the history has elsewhere than the disk, and remove what was copied already."""
        for run in self._ledger.runs.everything():
            if run.view.state not in ENDED or self._stopping.is_set():
                continue
            with contextlib.suppress(VocableError):
                async with self._moving:
                    here, there = self._places(run)
                    await asyncio.to_thread(_fetch, there, here, self._stopping)


def _fetch(source: Path, destination: Path, stopping: threading.Event) -> None:
    with contextlib.suppress(OSError):
        put_back(destination)
    if is_fetchable(source):
        _log.warning("%s belongs at %s and is moved there", source, destination)
        move_folder(source, destination, stopping)
