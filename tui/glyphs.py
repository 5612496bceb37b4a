"""The few characters beyond letters that the screen uses, and plain ones for terminals that lack them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Glyphs:
    """None of them carries a meaning alone."""

    states: Mapping[str, str]
    """A character for each state of a run."""
    full: str
    empty: str
    """Done and open part of a progress bar."""
    dot: str
    """Stands between things on one line."""
    ellipsis: str
    is_ascii: bool


UNICODE = Glyphs(
    {"queued": "·", "running": "▸", "paused": "‖", "stopped": "■", "finished": "✓", "failed": "!"},
    full="█",
    empty="░",
    dot="·",
    ellipsis="…",
    is_ascii=False,
)
ASCII = Glyphs(
    {"queued": ".", "running": ">", "paused": "=", "stopped": "x", "finished": "v", "failed": "!"},
    full="#",
    empty="-",
    dot="|",
    ellipsis="..",
    is_ascii=True,
)
