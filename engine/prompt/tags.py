"""What is no part of a prompt's text: comments, and tags like `<hypernet:name:0.8>`.

Called by `engine.prompt.parse` before any other grammar. `<embedding:name>` is no tag but a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMMENT = re.compile(r"\\.|#[^\n]*", re.DOTALL)
_TAG = re.compile(r"<(?!embedding:)(\w+):([^>]+)>", re.IGNORECASE)


@dataclass(frozen=True)
class Tag:
    """`<kind:argument:argument>`."""

    kind: str
    arguments: tuple[str, ...]


def strip_comments(text: str) -> str:
    """Remove every `#`, unless a backslash stands before it, and what follows it in its line."""
    return _COMMENT.sub(lambda found: "" if found[0].startswith("#") else found[0], text)


def take_tags(text: str) -> tuple[str, tuple[Tag, ...]]:
    """The text without its tags, and the tags in their order."""
    tags = tuple(Tag(found[1], tuple(found[2].split(":"))) for found in _TAG.finditer(text))
    return _TAG.sub("", text), tags
