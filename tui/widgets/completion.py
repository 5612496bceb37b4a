"""Grey completions for the fields of a form: folders on disk, and names from a list.

Paths are those of the machine the screen runs on, which is also the service's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from textual.suggester import Suggester


class FolderSuggester(Suggester):
    """Completes a path of folders, or the name of a folder inside `datasets`."""

    def __init__(self, datasets: Path) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._datasets = datasets

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(complete_folder, value, Path.cwd(), self._datasets)


class NameSuggester(Suggester):
    """Completes one of some names, which are asked for anew each time."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._names = names

    async def get_suggestion(self, value: str) -> str | None:
        return _first(value, await asyncio.to_thread(lambda: list(self._names())))


def complete_folder(text: str, cwd: Path, datasets: Path) -> str | None:
    """The first folder whose path, or whose name in `datasets`, begins with `text`; blocks while folders are read."""
    if not text:
        return None
    head, slash, tail = text.rpartition("/")
    typed = _expand(head + slash) if slash else Path()
    names = _folders(cwd / typed)
    found = _first(tail, names) if tail else next(iter(names), None)
    if found is None and tail in names:
        found = tail + "/"
    if found is not None and found != tail:
        return head + slash + found
    return None if slash else _first(text, _folders(datasets))


def find_images_folder(text: str, cwd: Path, datasets: Path) -> tuple[str, str]:
    """What to put into a recipe for what was typed, and why it cannot be right, as far as this machine knows.

    A path that exists from here becomes absolute, since the service has another current folder.
    """
    if not text:
        return "", ""
    path = _expand(text)
    if path.is_absolute():
        return str(path), "" if path.is_dir() else f"there is no folder {path}"
    if (cwd / path).is_dir():
        return os.path.normpath(cwd / path), ""
    if (datasets / path).is_dir():
        return text, ""
    return text, f"there is no folder {cwd / path}, nor one of this name in {datasets}"


def _expand(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _first(begin: str, names: Iterable[str]) -> str | None:
    return next((name for name in sorted(names) if name.startswith(begin) and name != begin), None) if begin else None


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
