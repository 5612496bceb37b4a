"""Watched folders whose changes can be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from daemon.watch import FolderWatch, Stamp, Timing

PATIENCE_S = 20.0
"""Only a hang takes this long."""

QUICK = Timing(settle_s=0.05, large_settle_s=0.1, empty_settle_s=0.2, rescan_s=60, poll_s=0.1, gather_s=0.01)
BLIND = Timing(settle_s=0.05, large_settle_s=0.1, empty_settle_s=0.2, rescan_s=0.2, poll_s=0.1, gather_s=0.01)
"""For watches that get no hints: regular looks come quickly."""


class Watched:
    """A folder watch with every table it told."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.tables: list[dict[Path, Stamp]] = []
        self._news = asyncio.Event()
        self.watch = FolderWatch(root, self._take, **options)

    def _take(self, files: Mapping[Path, Stamp]) -> None:
        self.tables.append(dict(files))
        self._news.set()

    @property
    def names(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.watch.files}

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_names(self, *names: str) -> None:
        await self.until(lambda: self.names == set(names))


Watch = Callable[..., Awaitable[Watched]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


@pytest.fixture
async def watch(root: Path) -> AsyncIterator[Watch]:
    begun: list[Watched] = []

    async def begin(**options: Any) -> Watched:
        watched = Watched(root, **{"timing": QUICK, **options})
        begun.append(watched)
        await watched.watch.start()
        return watched

    yield begin
    for watched in begun:
        await watched.watch.stop()
