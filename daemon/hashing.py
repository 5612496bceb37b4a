"""Hashes large model files in the background, one at a time, so that no listing waits for gigabytes to be read.

Part of the service. What was hashed is in the workspace's cache, where the catalog and the worker find it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from daemon.threads import run_apart
from engine.errors import VocableError
from engine.models.catalog import read_entry

_log = logging.getLogger(__name__)


class Hashing:
    """A line of models.

    Args:
        cache: the workspace's.
        on_hash: called when one more hash is known.
    """

    def __init__(self, cache: Path, on_hash: Callable[[], None]) -> None:
        self._cache = cache
        self._on_hash = on_hash
        self._waiting: dict[Path, None] = {}
        self._is_stopped = False
        self._task: asyncio.Task[None] | None = None

    def take(self, paths: Iterable[Path]) -> None:
        """Hash these models when their turn comes; those that wait already wait once."""
        if self._is_stopped:
            return
        self._waiting |= dict.fromkeys(paths)
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Begin no further file; the one at hand ends with the process."""
        self._is_stopped = True
        self._waiting.clear()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            path = next(iter(self._waiting))
            try:
                await self._hash(path)
                self._on_hash()
            except VocableError as error:
                _log.warning("a model could not be hashed: %s", error.title)
            except Exception:
                _log.exception("a model could not be hashed")
            self._waiting.pop(path, None)

    async def _hash(self, path: Path) -> None:
        await run_apart(lambda: read_entry(path, cache=self._cache), "hashing")
