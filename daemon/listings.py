"""What recipes can name beside models: prompt templates and datasets. Called in threads by the service.

Nothing is decoded here. Where several folders have the same name, recipes mean the first, and only that is listed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from daemon.protocol.data import DatasetView, TemplateDetail, TemplateView
from daemon.runs import describe_error
from engine.dataset.folder import PICTURE_SUFFIXES, natural_key
from engine.dataset.templates import find_template, read_template, shipped_templates
from engine.errors import VocableError
from engine.text import escape

MAX_ENTRIES = 1000
"""Templates and datasets that are listed at most."""
MAX_NAME = 250
"""Bytes; with an ending, about what a file system takes."""


def list_templates(folders: Sequence[Path]) -> list[TemplateView]:
    """Templates of `folders`, then the shipped ones that these do not replace, by name."""
    found: dict[str, Path] = {}
    for folder in [*folders, shipped_templates()]:
        for path in _entries(folder):
            if path.suffix == ".txt" and path.is_file():
                found.setdefault(path.stem, path)
    names = sorted(found, key=natural_key)[:MAX_ENTRIES]
    return [_describe_template(name, found[name]) for name in names]


def list_datasets(folders: Sequence[Path]) -> list[DatasetView]:
    """Folders in `folders`, by name, with the pictures that each holds itself."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in _entries(folder):
            if path.is_dir():
                found.setdefault(path.name, path)
    names = sorted(found, key=natural_key)[:MAX_ENTRIES]
    return [_count(name, found[name]) for name in names]


def show_template(name: str, folders: Sequence[Path]) -> TemplateDetail:
    """A template with its prompts. Raises VocableError `template.unknown`."""
    path = find_template(_check_name(name), folders)
    view = _describe_template(path.stem, path)
    return TemplateDetail(**view.model_dump(), lines=[] if view.error else list(read_template(path, needs_name=False)))


def find_dataset(name: str, folders: Sequence[Path]) -> Path:
    """The folder that a dataset's name means. Raises VocableError `dataset.missing`."""
    found = next((folder / name for folder in folders if (folder / _check_name(name)).is_dir()), None)
    if found is None:
        raise VocableError("dataset.missing", f"There is no dataset '{escape(name, 300)}'.", "List the datasets.")
    return found


def _check_name(name: str) -> str:
    """A name that leads to no other place than a listed one; what cannot be one becomes a name that nothing has."""
    is_name = name and not name.startswith(".") and "/" not in name and "\0" not in name
    return name if is_name and len(os.fsencode(name)) < MAX_NAME else "?/"


def _describe_template(name: str, path: Path) -> TemplateView:
    view = TemplateView(
        name=escape(name, 300), path=escape(str(path), 5000), shipped=path.parent == shipped_templates()
    )
    try:
        return view.model_copy(update={"prompts": len(read_template(path, needs_name=False))})
    except VocableError as error:
        return view.model_copy(update={"error": describe_error(error)})


def _count(name: str, folder: Path) -> DatasetView:
    names = {path.name for path in _entries(folder)}
    pictures = [Path(entry) for entry in names if entry.lower().endswith(PICTURE_SUFFIXES)]
    captions = sum(f"{picture.stem}.txt" in names for picture in pictures)
    shown = escape(name, 300), escape(str(folder), 5000)
    return DatasetView(name=shown[0], path=shown[1], pictures=len(pictures), captions=captions)


def _entries(folder: Path) -> Iterator[Path]:
    """What is in a folder; hidden entries are passed over, and a folder that cannot be read has none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    yield from (folder / name for name in names if not name.startswith("."))
