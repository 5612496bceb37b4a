"""The watched folders beside embeddings/: how each is watched, and what becomes of the recipes dropped into them.

Part of the service. Each folder has a task of its own that begins after the service answers, so neither a huge tree
nor a dead file server holds anything else up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from daemon.datasets import DatasetRecipes
from daemon.drops import RETRY_S, Enqueue
from daemon.events import Hub
from daemon.inbox import Inbox
from daemon.ledger import Ledger
from daemon.paths import Workspace
from daemon.runs import Run
from daemon.waiting import wait_at_most
from daemon.watch import FolderWatch, Stamp, Timing
from engine.errors import VocableError
from engine.text import escape

_log = logging.getLogger(__name__)

TIMING = Timing()

INBOX_TIMING = Timing(settle_s=2.0, large_settle_s=5.0)
"""A recipe cut short is often a recipe too, so writers get more time than where a file's end tells itself."""

_DEPTHS = {"datasets": 2, "templates": None, "models": 2, "inbox": 1}
"""Levels that are looked into: pictures lie in datasets/NAME/; nobody looks at done/ and refused/ in the inbox."""

_STOP_S = 5.0

Attend = Callable[[Mapping[Path, Stamp]], Awaitable[float]]
"""Does what a table asks for; returns after how many seconds it wants to see the table again at the latest."""


class Folders:
    """The watches of datasets/, templates/, models/ and inbox/, with those who take recipes from them."""

    def __init__(self, workspace: Workspace, hub: Hub, ledger: Ledger, enqueue: Enqueue) -> None:
        self._hub = hub
        self._told: dict[str, dict[str, Any]] = {}
        self._changed = {name: asyncio.Event() for name in _DEPTHS}
        self._watches = {name: self._watch(workspace.root / name, name) for name in _DEPTHS}

        def tell(outcome: Mapping[str, Any]) -> None:
            hub.fact("recipe", dict(outcome))

        checked = _guarded(enqueue)
        inbox = Inbox(workspace, checked, tell, lambda text: ledger.set_problem("inbox", text))
        datasets = DatasetRecipes(workspace, checked, tell, lambda text: ledger.set_problem("datasets", text))
        self._attendants: dict[str, Attend] = {"inbox": inbox.attend, "datasets": datasets.attend}
        self._starts: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch, in the background."""
        for name, watch in self._watches.items():
            start = asyncio.create_task(watch.start())
            self._starts.append(start)
            self._tasks.append(asyncio.create_task(self._follow(name, start)))

    async def stop(self) -> None:
        """End the watching; a look that hangs on a dead file server is not waited for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._starts:
            await asyncio.wait(self._starts, timeout=_STOP_S)
        for task in self._starts:
            task.cancel()
        await asyncio.gather(*(watch.stop() for watch in self._watches.values()))

    def look_soon(self) -> None:
        """Look at every folder now instead of at the next regular time."""
        for watch in self._watches.values():
            watch.look_soon()

    def health(self) -> dict[str, Any]:
        """How each folder is watched; see FolderWatch.health."""
        return {
            name: {"folder": escape(str(watch.root), 5000), **watch.health()} for name, watch in self._watches.items()
        }

    def _watch(self, root: Path, name: str) -> FolderWatch:
        return FolderWatch(
            root,
            lambda files: self._changed[name].set(),
            timing=INBOX_TIMING if name == "inbox" else TIMING,
            depth=_DEPTHS[name],
            on_look=lambda: self._tell(name),
        )

    def _tell(self, name: str) -> None:
        """Publish how a folder is watched when that, its number of entries or of lost hints is another than before."""
        health = self._watches[name].health()
        news = {"name": name, **{key: health[key] for key in ("mode", "reason", "entries", "overflows")}}
        if self._told.get(name) != news:
            self._told[name] = news
            self._hub.fact("folder", news, key=f"folder:{name}")

    async def _follow(self, name: str, start: asyncio.Task[None]) -> None:
        await start
        attend = self._attendants.get(name)
        wait_s = 0.0
        while attend:
            await wait_at_most(self._changed[name], wait_s)
            self._changed[name].clear()
            try:
                wait_s = await attend(self._watches[name].files)
            except Exception:
                _log.exception("what lies in %s/ could not be attended to", name)
                wait_s = RETRY_S[-1]


def _guarded(enqueue: Enqueue) -> Enqueue:
    """A fault of the service's own refuses the one recipe that met it, and holds up no other."""

    async def guarded(values: Mapping[str, Any], key: str) -> Run:
        try:
            return await enqueue(values, key)
        except VocableError:
            raise
        except Exception:
            _log.exception("a recipe could not be queued")
            hint = "Its log tells more: vocable daemon logs. Please report it."
            raise VocableError("internal", "The service failed at this recipe.", hint) from None

    return guarded
