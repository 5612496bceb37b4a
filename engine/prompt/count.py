"""How long a prompt is, as people are told while they write it. Called by the service for its token counter."""

from __future__ import annotations

from dataclasses import dataclass

from engine.prompt.layout import SLOTS
from engine.prompt.parse import ParsedPrompt


@dataclass(frozen=True)
class PromptCount:
    """Slots of a prompt's longest variant over all sides of `AND` and all steps."""

    count: int
    """Slots taken; a word takes one for each vector, and what a closed chunk leaves unused counts too."""
    limit: int
    """`count` rounded up to whole chunks of 75; at least one."""
    chunks: tuple[int, ...]
    """Slots taken in each chunk."""


def count_prompt(parsed: ParsedPrompt) -> PromptCount:
    """Count a prompt's slots."""
    variants = {entry.chunks for part in parsed.parts for entry in part.entries}
    counted = [tuple(chunk.used for chunk in chunks) for chunks in variants]
    longest = max(counted, key=lambda chunks: (_count(chunks), chunks))
    count = _count(longest)
    return PromptCount(count, -(-max(count, 1) // SLOTS) * SLOTS, longest)


def _count(chunks: tuple[int, ...]) -> int:
    return SLOTS * (len(chunks) - 1) + chunks[-1]
