"""What is known of each readable thing in a foreign file, as the inspector tells it and the verdicts keep it.

Plain values only. Foreign text in them is not yet escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar


class Facts(Protocol):
    """What a verdict needs to know of one thing."""

    @property
    def canonical(self) -> str:
        """SHA-256 of its canonical file, 64 hex digits."""


F = TypeVar("F", bound=Facts)


@dataclass(frozen=True)
class WordFacts:
    """One readable word."""

    name: str
    """Lawful name that its key gives it; empty for a word that is called like its file."""
    trigger: str
    vectors: int
    width: int
    """For two text encoders the sum."""
    split: int
    """Columns of the first of two encoders, else 0."""
    family: str
    step: int
    model: str
    model_hash: str
    canonical: str


@dataclass(frozen=True)
class HypernetworkFacts:
    """One readable hypernetwork, which is always called like its file."""

    step: int | None
    model: str
    model_hash: str
    family: str
    sizes: tuple[float, ...]
    """Width of each layer, as a multiple of what goes in."""
    activation: str
    layer_norm: bool
    widths: tuple[int, ...]
    """Channel counts of the contexts that it has modules for, rising."""
    parameters: int
    canonical: str


def read_facts(kind: type[F], values: Mapping[str, Any]) -> F:
    """Make facts of JSON values. Raises ValueError for other fields, or values of another kind, than there are."""
    known = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    if values.keys() != known.keys() or not all(_IS[known[name]](value) for name, value in values.items()):
        raise ValueError("other fields than there are")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_whole(value: Any) -> bool:
    return type(value) is int


_IS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "int": _is_whole,
    "int | None": lambda value: value is None or _is_whole(value),
    "tuple[int, ...]": lambda value: type(value) is list and all(map(_is_whole, value)),
    "tuple[float, ...]": lambda value: type(value) is list and all(map(_is_number, value)),
}
"""By the annotation of a field: whether a JSON value fits it."""
