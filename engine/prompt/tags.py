"""What is no part of a prompt's text: comments, and tags like `<hypernet:name:0.8>`.

Called by `engine.prompt.parse` before any other grammar, and by the service for the hypernetworks that a prompt names.
`<embedding:name>` is no tag but a word.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_COMMENT = re.compile(r"\\.|#[^\n]*", re.DOTALL)
_TAG = re.compile(r"<(?!embedding:)(\w+):([^>]+)>", re.IGNORECASE)


@dataclass(frozen=True)
class Tag:
    """`<kind:argument:argument>`."""

    kind: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class HypernetTag:
    """`<hypernet:name>` or `<hypernet:name:strength>`."""

    name: str
    strength: float = 1.0
    """What the network's share is multiplied by; 0 is the bare model, below 0 the opposite."""


def strip_comments(text: str) -> str:
    """Remove every `#`, unless a backslash stands before it, and what follows it in its line."""
    return _COMMENT.sub(lambda found: "" if found[0].startswith("#") else found[0], text)


def take_tags(text: str) -> tuple[str, tuple[Tag, ...]]:
    """The text without its tags, and the tags in their order."""
    tags = tuple(Tag(found[1], tuple(found[2].split(":"))) for found in _TAG.finditer(text))
    return _TAG.sub("", text), tags


def is_hypernet(tag: Tag) -> bool:
    """Whether a tag is meant to name a hypernetwork."""
    return tag.kind.lower() == "hypernet"


def read_hypernet(tag: Tag) -> HypernetTag | None:
    """What a tag says of a hypernetwork; None for other tags, and for one whose strength is no finite number."""
    name, *more = (argument.strip() for argument in tag.arguments)
    if not is_hypernet(tag) or not name or len(more) > 1:
        return None
    try:
        strength = float(more[0]) if more else 1.0
    except ValueError:
        return None
    return HypernetTag(name, strength) if math.isfinite(strength) else None
