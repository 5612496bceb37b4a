"""From files to words: which of the files found is the word of its name, and what people are told of each.

Pure; called by the library. The invariant: a name belongs to one readable file, and every other that claims it says
which one has it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daemon.inspector.verdicts import Verdict
from daemon.protocol.service import WordView
from engine.names import sanitize_name
from engine.text import escape

SUFFIXES = (".safetensors", ".png", ".pt", ".bin")
"""Extensions of files that are meant as words; of two files with one name, the kind further left is used."""

_ABSENT = "embedding.absent"
"""Code of the verdict on a picture that carries no word and never claimed to."""


@dataclass(frozen=True)
class Word:
    """What is known of one file."""

    sha256: str
    """Empty when it could not be read."""
    verdict: Verdict
    view: WordView
    """As it is told while no other file has its name."""


@dataclass(frozen=True)
class Table:
    """The words of a folder, for a model of one width."""

    width: int
    views: list[WordView] = field(default_factory=list)
    """By name without regard to case."""
    words: list[dict[str, str]] = field(default_factory=list)
    """The wire's `words`: every readable one that has its name, of any width."""


def describe(path: Path, sha256: str, verdict: Verdict) -> WordView:
    """Say what a file holds; foreign text is escaped."""
    return WordView(
        name=sanitize_name(path.stem) or escape(path.stem, 64),
        path=escape(str(path), 5000),
        usable=verdict.readable,
        reason=escape(f"{verdict.title} {verdict.hint}".strip(), 500),
        vectors=verdict.vectors,
        width=verdict.width,
        step=verdict.step if verdict.readable else None,
        model=escape(verdict.model, 200),
        hash=sha256[:12],
    )


def tabulate(found: Mapping[Path, Word], root: Path, width: int, canonical: Callable[[str], Path]) -> Table:
    """Give each name to one file.

    Args:
        found: what is known of the files below `root`.
        width: length of the model's token vectors; 0 while it is not known, and then every width fits.
        canonical: where the canonical copy of a content lies.
    """
    table = Table(width)
    holders: dict[str, Path] = {}
    for path in sorted(found, key=lambda path: _rank(path, found[path], width)):
        word = found[path]
        view = word.view
        if word.verdict.code == _ABSENT:
            continue
        if word.verdict.readable:
            holder = holders.setdefault(_folded(view.name), path)
            if holder == path:
                table.words.append({"name": view.name, "path": str(canonical(word.sha256)), "hash": word.sha256})
            view = _explain(view, "" if holder == path else str(holder.relative_to(root)), width)
        table.views.append(view)
    table.views.sort(key=lambda view: (_folded(view.name), view.name, view.path))
    table.words.sort(key=lambda word: word["name"])
    return table


def _rank(path: Path, word: Word, width: int) -> tuple[bool, int, int, str]:
    """Who has a name first: what fits the model, then the shallower folder, the kind of file, the path."""
    fits = width in (0, word.verdict.width)
    return (not fits, len(path.parts), SUFFIXES.index(path.suffix.lower()), str(path))


def _explain(view: WordView, holder: str, width: int) -> WordView:
    """Say why a readable file is not usable, if it is not."""
    reason = ""
    if holder:
        reason = f"{escape(holder, 300)} has the same name and is used instead."
    elif width and view.width != width:
        reason = f"Its vectors are {view.width} numbers wide, the model's are {width}."
    return view.model_copy(update={"usable": False, "reason": reason}) if reason else view


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())
