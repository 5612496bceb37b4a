"""A dataset folder: where it is and which pictures it holds, in the order that people expect.

Called by preflight, training and evaluation. No torch, and nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.errors import VocableError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of file names, in any case, that are taken for pictures; every other file is passed over."""


def find_folder(reference: str, datasets: Sequence[Path]) -> Path:
    """Find the folder that `data.folder` means: an absolute path, `~/...`, or a name inside one of `datasets`.

    Raises:
        VocableError: `dataset.missing` or `dataset.unreadable`, with what would be right.
    """
    given = _expand(reference)
    candidates = [given] if given.is_absolute() else [folder / given for folder in datasets]
    try:
        found = next((candidate for candidate in candidates if candidate.exists()), None)
        if found is None:
            raise VocableError("dataset.missing", f"There is no folder '{reference}'.", _suggest(datasets))
    except OSError as error:
        raise _unreadable(given, error) from error
    if not found.is_dir():
        raise VocableError("dataset.missing", f"'{found}' is a file.", "Give the folder that holds the pictures.")
    return found.resolve()


def expect_folder(reference: str, datasets: Sequence[Path]) -> Path:
    """Where the folder that `data.folder` means would be, were it there."""
    given = _expand(reference)
    return given if given.is_absolute() or not datasets else datasets[0] / given


def list_pictures(folder: Path) -> tuple[Path, ...]:
    """The pictures of `folder` itself in natural order (`2.png` before `10.png`); hidden files are passed over.

    Raises:
        VocableError: `dataset.empty` or `dataset.unreadable`.
    """
    try:
        names = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        pictures = [path for path in names if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()]
        deeper = any(path.is_dir() for path in names)
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not pictures:
        hint = f"Put some pictures ({', '.join(PICTURE_SUFFIXES)}) into it; five to twenty of one subject are usual."
        if deeper:
            hint = "Pictures in its sub-folders are not looked at: give the folder that holds them. " + hint
        raise VocableError("dataset.empty", f"The folder '{folder}' holds no pictures.", hint)
    return tuple(sorted(pictures, key=lambda path: natural_key(path.name)))


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that compares runs of digits as numbers and letters without case; equal names fall back to spelling."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if place % 2 else (0, part.casefold()) for place, part in enumerate(parts)], name


def _suggest(datasets: Sequence[Path]) -> str:
    entries = (path for folder in datasets if folder.is_dir() for path in folder.iterdir())
    known = sorted(path.name for path in entries if path.is_dir() and not path.name.startswith("."))
    if not known:
        return "Give the path of a folder of pictures."
    return f"Give the path of a folder, or one of these names: {', '.join(known[:10])}."


def _expand(reference: str) -> Path:
    try:
        return Path(reference).expanduser()
    except RuntimeError:
        return Path(reference)


def _unreadable(folder: Path, error: OSError) -> VocableError:
    return VocableError(
        "dataset.unreadable",
        f"The folder '{folder}' could not be read ({error.strerror}).",
        "Check that it exists and that the service may read it.",
    )
