"""Datasets that bring their recipe: a folder in datasets/ with a `vocable.toml` is trained once it has settled.

Attended by the watched folders, on the event loop; what touches the disk runs in threads. The invariant: a content of
a folder's recipe is queued once, also over restarts; `state/datasets.json` remembers which were.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.drops import (
    RETRY_S,
    Drop,
    Enqueue,
    Tell,
    describe_problem,
    describe_queued,
    describe_refusal,
    may_pass,
    read_drop,
    resolve_folders,
    write_reason,
)
from daemon.paths import SETTINGS, Workspace
from daemon.runs import Run
from daemon.watch import Stamp
from engine.errors import VocableError
from engine.files import write_atomically
from engine.text import escape

_log = logging.getLogger(__name__)

RECIPE = SETTINGS
REASON = "vocable.reason.txt"

QUIET_S = 10.0
"""A folder has settled when nothing in it, hidden files included, changed for so long."""

_MEMORY_HINT = "Put it right or remove it; without it, recipes queued more than a week ago are trained once more."


@dataclass(frozen=True)
class _Attempt:
    """What is known of a folder as it is now."""

    contents: int
    """Stands for the stamps of all its files."""
    tries: int = 0
    retry_at: float = float("inf")
    """Monotonic time; infinite when nothing is left to do until it changes."""
    problem: str = ""


@dataclass(frozen=True)
class _Calm:
    """How a folder looked that has not settled, and since when (monotonic)."""

    look: tuple[int, int]
    since: float


class DatasetRecipes:
    """Trains datasets that bring their recipe.

    Args:
        enqueue: checks a recipe like a request and queues it.
        tell: publishes what became of one.
        set_problem: shows what keeps recipes from being taken, or with an empty text that nothing does.
    """

    def __init__(self, workspace: Workspace, enqueue: Enqueue, tell: Tell, set_problem: Callable[[str], None]) -> None:
        self._root = workspace.root
        self._folder = workspace.datasets
        self._memory = workspace.state / "datasets.json"
        self._enqueue = enqueue
        self._tell = tell
        self._set_problem = set_problem
        self._attempts: dict[Path, _Attempt] = {}
        self._calm: dict[Path, _Calm] = {}
        self._trained: dict[str, list[str]] | None = None
        """SHA-256 of the recipes that were queued, by folder; None until it was read."""

    async def attend(self, files: Mapping[Path, Stamp]) -> float:
        """Take the recipe of every folder that is due; returns after how many seconds to do so again at the latest."""
        found = await asyncio.to_thread(_find_recipes, files, self._folder)
        self._attempts = {folder: old for folder, old in self._attempts.items() if found.get(folder) == old.contents}
        self._calm = {folder: calm for folder, calm in self._calm.items() if folder in found}
        if not found:
            self._set_problem("")
            return float("inf")
        try:
            if self._trained is None:
                self._trained = await asyncio.to_thread(_read_memory, self._memory)
        except VocableError as error:
            self._set_problem(f"{error.title} {error.hint}")
            return RETRY_S[-1]
        waits = [await self._attend_folder(folder, contents) for folder, contents in found.items()]
        self._set_problem(" ".join(old.problem for old in self._attempts.values() if old.problem)[:2000])
        return min(waits)

    async def _attend_folder(self, folder: Path, contents: int) -> float:
        now = time.monotonic()
        attempt = self._attempts.get(folder)
        if attempt and now < attempt.retry_at:
            return attempt.retry_at - now
        wait_s = await asyncio.to_thread(self._settles_in, folder, now)
        if wait_s > 0:
            return wait_s
        self._attempts[folder] = await self._take(folder, _Attempt(contents, attempt.tries + 1 if attempt else 1))
        return max(0.01, self._attempts[folder].retry_at - now)

    def _settles_in(self, folder: Path, now: float) -> float:
        """Seconds after which to look again; 0 for a folder that has settled. Runs in a thread.

        What an upload writes has often a hidden name until it is whole, so those count. Times of change from a clock
        ahead of ours are good for comparing only.
        """
        look = _look_at(folder)
        calm = self._calm.get(folder)
        if calm is None or calm.look != look:
            calm = self._calm[folder] = _Calm(look, now)
        left_s = QUIET_S - max(time.time() - look[1] / 1e9, now - calm.since)
        return min(max(left_s, 0.01), QUIET_S) if left_s > 0 else 0

    async def _take(self, folder: Path, attempt: _Attempt) -> _Attempt:
        path = folder / RECIPE
        try:
            drop = await asyncio.to_thread(read_drop, path)
            run = None
            if not self._was_trained(folder, drop):
                run = await self._queue(folder, drop)
                await asyncio.to_thread(self._remember, folder, drop)
            await asyncio.to_thread(_remove, folder / REASON)
            if run:
                self._tell(describe_queued(path, run))
                _log.info("the recipe of the dataset %s is queued", escape(folder.name))
        except VocableError as error:
            if not may_pass(error, attempt.tries):
                return await self._refuse(folder, attempt, error)
            return _later(attempt, path, error)
        return attempt

    async def _queue(self, folder: Path, drop: Drop) -> Run:
        values: dict[str, Any] = {"name": unicodedata.normalize("NFC", folder.name), **drop.values}
        data = values.get("data", {})
        if isinstance(data, Mapping):
            values["data"] = {"folder": str(folder), **data}
        place = hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:16]
        return await self._enqueue(resolve_folders(values, self._root, folder), f"dataset:{place}:{drop.sha256}")

    async def _refuse(self, folder: Path, attempt: _Attempt, error: VocableError) -> _Attempt:
        advice = (
            "Correct this, here or in the pictures; the recipe is tried again when anything in this folder changes."
        )
        try:
            await asyncio.to_thread(write_reason, folder / REASON, RECIPE, error, advice)
        except VocableError as failure:
            return _later(attempt, folder / RECIPE, failure)
        _log.warning("the recipe of the dataset %s is refused: %s", escape(folder.name), escape(str(error)))
        self._tell(describe_refusal(folder / RECIPE, error))
        return attempt

    def _was_trained(self, folder: Path, drop: Drop) -> bool:
        return drop.sha256 in (self._trained or {}).get(folder.name, [])

    def _remember(self, folder: Path, drop: Drop) -> None:
        """Note that a recipe is queued. Raises VocableError `disk.full` or `disk.write`. Runs in a thread."""
        before = self._trained or {}
        trained = {**before, folder.name: [*before.get(folder.name, []), drop.sha256]}
        write_atomically(self._memory, json.dumps(trained, indent=1).encode())
        self._trained = trained


def _later(attempt: _Attempt, path: Path, error: VocableError) -> _Attempt:
    wait_s = RETRY_S[min(attempt.tries, len(RETRY_S)) - 1]
    return _Attempt(attempt.contents, attempt.tries, time.monotonic() + wait_s, describe_problem(path, error))


def _find_recipes(files: Mapping[Path, Stamp], root: Path) -> dict[Path, int]:
    """Folders right below `root` that hold a recipe, each with a number that changes with its files."""
    folders = {path.parent for path in files if path.name == RECIPE and path.parent.parent == root}
    contents = dict.fromkeys(sorted(folders), 0)
    if folders:
        for path, stamp in files.items():
            if path.parent in folders and path.name != REASON:
                contents[path.parent] ^= hash((path.name, stamp))
    return contents


def _look_at(folder: Path) -> tuple[int, int]:
    """How many things lie in a folder, and the newest time of change in nanoseconds, its own left out."""
    times = [0]
    try:
        with os.scandir(folder) as entries:
            times += [entry.stat(follow_symlinks=False).st_ctime_ns for entry in entries if entry.name != REASON]
    except OSError:
        times.append(time.time_ns())
    return len(times), max(times)


def _read_memory(path: Path) -> dict[str, list[str]]:
    """Raises VocableError `state.unreadable`: without the memory every recipe would be trained once more."""
    try:
        trained = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [str(sha256) for sha256 in known] for name, known in trained.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        title = f"No recipe in datasets/ is trained: {path} cannot be read ({error})."
        raise VocableError("state.unreadable", title, _MEMORY_HINT) from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be removed (%s)", escape(str(path)), error.strerror)
