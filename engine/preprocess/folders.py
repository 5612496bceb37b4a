"""The two folders of a request: where they are, that they do not feed each other, and what lies in the source.

Called by run and plan. Nothing is written here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.dataset.folder import PICTURE_SUFFIXES, find_folder, list_pictures
from engine.errors import VocableError
from engine.preprocess.request import PreprocessRequest

DEBUG_FOLDER = "debug"
"""Folder in the destination for pictures that show how the focal point was found; not part of the dataset."""

_MAX_PASSED_OVER = 20
_COMPANIONS = (".txt", ".caption", ".json", ".npz")
"""Endings of what lies beside pictures in datasets; nobody misses them among the pictures."""


@dataclass(frozen=True)
class Folders:
    source: Path
    """Resolved."""
    destination: Path
    """Resolved; may not exist yet."""
    pictures: tuple[Path, ...]
    """The source's pictures in natural order."""
    passed_over: tuple[str, ...]
    """Names of the source's other files, the first 20."""


def find_folders(request: PreprocessRequest, datasets: Sequence[Path]) -> Folders:
    """Find the source and its pictures, and the destination.

    Raises:
        VocableError: `dataset.{missing,unreadable,empty}`, `preprocess.same`, `preprocess.destination`.
    """
    source = find_folder(request.source, datasets)
    destination = _find_destination(request.destination, datasets)
    for folder in (destination, destination / DEBUG_FOLDER):
        if folder == source or (folder.exists() and folder.samefile(source)):
            title = f"The prepared pictures would go into the folder that they are made from, '{source}'."
            raise VocableError("preprocess.same", title, "Choose another destination.")
    return Folders(source, destination, list_pictures(source), _passed_over(source))


def _find_destination(reference: str, datasets: Sequence[Path]) -> Path:
    given = Path(os.path.expanduser(reference))
    if not given.is_absolute():
        if not datasets or ".." in given.parts:
            title = f"The destination '{reference}' is neither a whole path nor a name for a folder in datasets/."
            raise VocableError("preprocess.destination", title, "Give a path that begins with '/'.")
        given = datasets[0] / given
    try:
        resolved = given.resolve()
        if resolved.exists() and not resolved.is_dir():
            raise VocableError("preprocess.destination", f"'{resolved}' is a file.", "Choose another destination.")
    except (OSError, ValueError, RuntimeError) as error:
        title = f"The destination '{reference}' cannot be used ({error})."
        raise VocableError("preprocess.destination", title, "Choose another destination.") from error
    return resolved


def _passed_over(source: Path) -> tuple[str, ...]:
    known = (*PICTURE_SUFFIXES, *_COMPANIONS)
    names = (
        path.name
        for path in source.iterdir()
        if not path.name.startswith(".") and path.suffix.lower() not in known and not path.is_dir()
    )
    return tuple(sorted(names)[:_MAX_PASSED_OVER])
