"""Files of watched folders that clients have made, deleted and taken back. Called by the service.

The invariant: whatever stood where something is written, or is deleted, is in trash/ before.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.library import Library
from daemon.tables import View
from daemon.trash import move_away, move_file, take_back
from engine.errors import VocableError
from engine.names import fold_name, name_fault, sanitize_name
from engine.text import escape

_KEPT = re.compile(r"(?P<stem>.+)-\d+")
"""How `daemon.trash.keep_copy` calls a file: its stem and the time of its last change."""


@dataclass(frozen=True)
class Results:
    """One watched folder, as far as clients may change it."""

    noun: str
    """What its files are, `embedding` or `hypernetwork`; first part of the error codes."""
    library: Library[Any]
    folder: Path
    trash: Path
    """Where files of this folder go."""

    def show(self, name: str) -> View:
        """What has a name, or else claims it first. Raises VocableError `NOUN.unknown`."""
        known = self.library.named(name)
        if not known:
            raise self.unknown(name)
        return next((view for view in known if view["usable"]), known[0])

    def show_file(self, name: str, path: Path) -> View:
        """What a file that claims a name is. Raises VocableError `NOUN.unknown` when it is gone already."""
        shown = escape(str(path), 5000)
        found = next((view for view in self.library.named(name) if view["path"] == shown), None)
        if found is None:
            raise self.unknown(name)
        return found

    def unknown(self, name: str) -> VocableError:
        title = f"There is no {self.noun} '{escape(name, 100)}'."
        return VocableError(f"{self.noun}.unknown", title, "Names are those of the list, without a file's ending.")

    def taken(self, name: str, path: Path, hint: str) -> VocableError:
        what = "word" if self.noun == "embedding" else self.noun
        title = f"There is a {what} '{escape(name, 100)}' already: {escape(str(path), 5000)}."
        return VocableError(f"{self.noun}.exists", title, hint)

    def check_name(self, name: str) -> None:
        """Raises VocableError `NOUN.name`."""
        fault = name_fault(name)
        if fault:
            raise VocableError(f"{self.noun}.name", f"'{escape(name, 100)}' {fault}.", "Choose another name.")

    def find(self, name: str) -> Path:
        """The file that has a name, or else claims it first. Raises VocableError `NOUN.unknown`, `NOUN.several`."""
        known = self.library.files(name)
        if not known:
            raise self.unknown(name)
        if self.library.holds_several(known[0]):
            title = f"{escape(str(known[0]), 5000)} holds other words beside '{escape(name, 100)}'."
            raise VocableError(f"{self.noun}.several", title, "Move the file itself, or convert the word first.")
        return known[0]


async def claim(results: Results, name: str, *, overwrite: bool) -> tuple[Path, Sequence[Path]]:
    """The file that something of this name is written to, and other files of that name that it replaces.

    Raises:
        VocableError: `NOUN.name`; `NOUN.exists` when the name is taken and nothing may be replaced.
    """
    results.check_name(name)
    destination = results.folder / f"{name}.safetensors"
    known = results.library.files(name)
    is_there = await asyncio.to_thread(os.path.lexists, destination)
    if (known or is_there) and not overwrite:
        raise results.taken(name, (known or [destination])[0], "Choose another name, or ask for it to be replaced.")
    return destination, [path for path in known if path != destination]


async def delete(results: Results, name: str) -> View:
    """Move the file that has a name to trash/, or the first of those that claim it in vain; tells of it as it was.

    Raises:
        VocableError: `NOUN.unknown`, `NOUN.several`, `disk.full`, `disk.write`.
    """
    path = results.find(name)
    view = results.show_file(name, path)
    await asyncio.to_thread(move_away, path, results.trash)
    await results.library.rescan()
    return view


async def rename(results: Results, name: str, new: str) -> Path:
    """Give the file that has a name another one, in its place; returns its path.

    Raises:
        VocableError: `NOUN.unknown`, `NOUN.several`, `NOUN.name`, `NOUN.exists`, `disk.full`, `disk.write`.
    """
    results.check_name(new)
    path = results.find(name)
    others = [other for other in results.library.files(new) if other != path]
    if others:
        raise results.taken(new, others[0], "Choose another name, or delete that one first.")
    target = path.with_name(f"{new}{path.suffix}")
    try:
        await asyncio.to_thread(move_file, path, target)
    except VocableError as error:
        if error.code != "file.exists":
            raise
        raise results.taken(new, target, "Choose another name, or delete that one first.") from None
    await results.library.rescan()
    return target


async def restore(results: Results, name: str) -> Path:
    """Take the newest file of a name out of trash/, into the folder itself; returns its path.

    Raises:
        VocableError: `file.absent` when trash/ has none; `NOUN.exists`, `disk.full`, `disk.write`.
    """
    kept = await asyncio.to_thread(_find_kept, results.trash, name)
    if kept is None:
        title = f"There is no {results.noun} '{escape(name, 100)}' in trash/."
        raise VocableError("file.absent", title, f"Look into {results.trash}.")
    match = _KEPT.fullmatch(kept.stem)
    assert match
    path = results.folder / f"{match['stem']}{kept.suffix}"
    try:
        await asyncio.to_thread(take_back, kept, path)
    except VocableError as error:
        if error.code != "file.exists":
            raise
        raise VocableError(f"{results.noun}.exists", error.title, "Rename or delete that one first.") from None
    await results.library.rescan()
    return path


def _find_kept(trash: Path, name: str) -> Path | None:
    """The newest file in a trash folder that had a name."""
    try:
        names = os.listdir(trash)
    except OSError:
        return None
    found = []
    for path in map(trash.joinpath, names):
        match = _KEPT.fullmatch(path.stem)
        if match and path.is_file() and fold_name(sanitize_name(match["stem"]) or match["stem"]) == fold_name(name):
            found.append(path)
    return max(found, key=lambda path: int(path.stem.rpartition("-")[2]), default=None)
