"""What a library knows of the files in its folder, whatever kind they are of, and the table that it makes of them.

Pure data and functions; `daemon.words` and `daemon.hypernetworks` each say what their kind is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol

from daemon.inspector.facts import F
from daemon.inspector.verdicts import Verdict
from engine.models.catalog import other_model
from engine.names import fold_name, sanitize_name
from engine.text import escape

_JSON_PIECE = 256
"""Views that are written as JSON in one go; the event loop waits for no more than one such piece."""

View = dict[str, Any]
"""The values of a WordView or HypernetworkView: there may be many thousands, and plain ones cost least to keep."""


class Vocabulary(Protocol):
    """What is needed of a model's tokenizer (`engine.prompt.tokenizer.PromptTokenizer`)."""

    @property
    def name_ids(self) -> Callable[[str], tuple[int, ...]]: ...
    def is_ordinary(self, ids: Sequence[int]) -> bool: ...


@dataclass(frozen=True)
class Target:
    """The base model that files are compared with."""

    name: str
    width: int
    hash: str = ""
    """10 hex digits."""
    split: int = 0
    """Columns of the first of two text encoders, else 0."""
    family: str = ""
    channels: tuple[int, ...] = ()
    """Channel counts of the contexts of its attention, rising; empty when they are not known."""
    vocabulary: Vocabulary | None = None
    """None when the model's tokenizer cannot be read: then names are compared as texts only."""


@dataclass(frozen=True)
class Found(Generic[F]):
    """What is known of one file, made ready for the table."""

    sha256: str
    """Empty when it could not be read."""
    verdict: Verdict[F]
    rank: tuple[int, int, str]
    """Who has a name first: the shallower folder, the kind of file, the path."""
    views: tuple[View, ...]
    """As each thing in it is told while nothing speaks against it; one for a file that holds none."""


@dataclass(frozen=True)
class Table:
    """What a folder holds, for one model."""

    target: Target | None
    views: list[View] = field(default_factory=list)
    """By name without regard to case."""
    wire: list[dict[str, Any]] = field(default_factory=list)
    """What the worker is told of each readable thing that has its name, in order of precedence."""
    json: bytes = b"[]"
    """`views` as JSON."""
    usable: int = 0
    """How many of the views are."""


@dataclass(frozen=True)
class Kind(Generic[F]):
    """What tells the files of one folder from those of another."""

    cache: str
    """Folder in `cache/` of verdicts and canonical files."""
    facts: type[F]
    question: str
    """The inspector's operation that reads such a file."""
    suffixes: tuple[str, ...]
    """Extensions of files that are meant; of two files with one name, the kind further left is used."""
    max_bytes: int
    """A larger file is refused unread."""
    incomplete: str
    """Code of the error of a file whose end may be still to come."""
    describe: Callable[[Path, str, Verdict[F]], Found[F]]
    """Says what a file with this path, SHA-256 and verdict holds; foreign text is escaped."""
    tabulate: Callable[[Mapping[Path, Found[F]], Path, Target | None, Callable[[str], Path]], Table]
    """Gives each name to one, of the files below a folder, for a model; the last tells where canonical files lie."""

    def is_meant(self, name: str) -> bool:
        """Whether a file of this name is meant to be of this kind. `NAME.preview.png` shows NAME to other programs."""
        folded = name.lower()
        return folded.endswith(self.suffixes) and not folded.endswith(tuple(f".preview{end}" for end in self.suffixes))


def make_table(target: Target | None, views: list[View], wire: list[dict[str, Any]]) -> Table:
    """The table of these views, which are put in order here."""
    views.sort(key=lambda view: (fold_name(view["name"]), view["name"], view["path"]))
    return Table(target, views, wire, _write_json(views), sum(view["usable"] for view in views))


def describe_path(path: Path, sha256: str, verdict: Verdict[F]) -> tuple[str, View]:
    """The lawful name of a file, empty when it has none, and what every kind tells of one."""
    own_name = sanitize_name(path.stem)
    shown = verdict.named(own_name or path.stem)
    return own_name, {
        "name": own_name or escape(path.stem, 64),
        "path": escape(str(path), 5000),
        "usable": verdict.readable,
        "verdict": "usable" if verdict.readable else "unreadable",
        "reason": escape(f"{shown.title} {shown.hint}".strip(), 500),
        "flavour": escape(verdict.flavour, 100),
        "hash": sha256[:12],
    }


def rank(path: Path, suffixes: Sequence[str]) -> tuple[int, int, str]:
    """See Found.rank."""
    return len(path.parts), suffixes.index(path.suffix.lower()), str(path)


def trained_elsewhere(model: str, model_hash: str, target: Target | None) -> str:
    """That something was trained on another model than the target, in a sentence; empty when it was not.

    Args:
        model, model_hash: what it was trained on, as its file says.
    """
    other = other_model(model, model_hash, name=target.name, hash=target.hash) if target else ""
    return f"It was trained on {escape(other, 250)}, not on {escape(target.name, 100)}." if other and target else ""


def _write_json(views: Sequence[View]) -> bytes:
    pieces = [
        json.dumps(views[start : start + _JSON_PIECE], separators=(",", ":"))[1:-1]
        for start in range(0, len(views), _JSON_PIECE)
    ]
    return f"[{','.join(pieces)}]".encode()
