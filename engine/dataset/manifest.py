"""Which pictures a dataset holds, by name, content and caption, and what differs between two such sets.

Used by training: a run's journal keeps manifests, and changes are told in the words made here. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.dataset.folder import natural_key

_NAMED = 5
"""Pictures named in one list before the rest is only counted."""


@dataclass(frozen=True)
class Entry:
    """One picture of a dataset."""

    sha256: str
    """Of the picture's file, hexadecimal."""
    caption: str


Manifest = Mapping[str, Entry]
"""Entries by file name, in natural order."""


@dataclass(frozen=True)
class Difference:
    """What leads from one manifest to another, as names; each picture stands in one place."""

    new: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    """The content is another, and perhaps the caption too."""
    captioned: tuple[str, ...] = ()
    """Only the caption is another."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Old and new name; the content is the same."""


def sort_manifest(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries in natural order of their names, which is the order that epochs shuffle."""
    return {name: entries[name] for name in sorted(entries, key=natural_key)}


def compare(before: Manifest, after: Manifest) -> Difference:
    """What changed, in natural order."""
    removed = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    renamed = _pair(removed, new, before, after)
    gone, come = {old for old, _ in renamed}, {name for _, name in renamed}
    both = [name for name in after if name in before]
    replaced = [name for name in both if before[name].sha256 != after[name].sha256]
    captioned = [name for name in both if before[name] != after[name] and name not in replaced]
    return Difference(
        new=tuple(name for name in new if name not in come),
        removed=tuple(name for name in removed if name not in gone),
        replaced=tuple(replaced),
        captioned=tuple(captioned),
        renamed=renamed,
    )


def describe(difference: Difference) -> str:
    """The difference in words: `2 pictures new (a.png, b.png), 1 removed (c.png)`; empty when there is none."""
    renamed = [f"{old} is {name}" for old, name in difference.renamed]
    groups = [
        (difference.new, "picture", "new"),
        (difference.removed, "picture", "removed"),
        (difference.replaced, "picture", "replaced"),
        (renamed, "picture", "renamed"),
        (difference.captioned, "caption", "changed"),
    ]
    parts: list[str] = []
    said = ""
    for names, noun, what in groups:
        if names:
            counted = str(len(names)) if noun == said else count(len(names), noun)
            parts.append(f"{counted} {what} ({list_some(names)})")
            said = noun
    return ", ".join(parts)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def list_some(names: Sequence[str], separator: str = ", ", limit: int = _NAMED) -> str:
    """The first of `names`, and how many more there are."""
    more = f"{separator}and {len(names) - limit} more" if len(names) > limit else ""
    return separator.join(names[:limit]) + more


def _pair(removed: Iterable[str], new: Iterable[str], before: Manifest, after: Manifest) -> tuple[tuple[str, str], ...]:
    """Names that went and came with the same content."""
    free: dict[str, list[str]] = {}
    for name in new:
        free.setdefault(after[name].sha256, []).append(name)
    pairs = []
    for old in removed:
        if free.get(before[old].sha256):
            pairs.append((old, free[before[old].sha256].pop(0)))
    return tuple(pairs)
