"""What preprocessing says of its work: plain data, each ready for JSON through `dataclasses.asdict`.

Made by `plan` and `run`; read by the job, its clients and the record `preprocess.json`. File names are as on disk:
escape them (`engine.text`) before a terminal or a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["made", "unchanged", "duplicate", "failed"]
"""`made`: written now (in a plan: would be). `duplicate`: left out, it looks like another. `failed`: see reason."""

Step = Literal["split", "focal crop", "auto size", "keep size", "resize"]


@dataclass(frozen=True)
class Output:
    """A prepared picture."""

    name: str
    """File name in the destination."""
    step: Step
    width: int
    height: int
    flipped: bool = False
    caption: str = ""
    """What is said about it; empty when nothing is."""


@dataclass(frozen=True)
class PictureResult:
    """What was, or would be, done to one source picture."""

    source: str
    """File name in the source folder."""
    state: State
    outputs: tuple[Output, ...] = ()
    notes: tuple[str, ...] = ()
    """What was done to the picture before the steps, e.g. `turned upright`."""
    warnings: tuple[str, ...] = ()
    """Sentences about it that a user should see."""
    reason: str = ""
    """Why it failed or whose duplicate it is, as a sentence; else empty."""


@dataclass(frozen=True)
class PictureDone:
    """One source picture is dealt with; they come in the order of their names."""

    done: int
    total: int
    picture: PictureResult


@dataclass(frozen=True)
class Summary:
    """How it all ended."""

    total: int
    """Source pictures."""
    made: int
    unchanged: int
    duplicates: int
    failed: int
    files: int
    """Prepared pictures that the destination holds by now from these sources."""
    cancelled: bool
    left: tuple[str, ...]
    """Files made earlier of pictures that the source no longer holds; still there."""
    removed: tuple[str, ...]
    """Such files that were removed because `remove_left` asked for it."""
    passed_over: tuple[str, ...]
    """Names in the source folder that are no pictures by their ending, the first 20."""


@dataclass(frozen=True)
class Plan:
    """What `run.preprocess` would do; nothing was written."""

    source: str
    destination: str
    pictures: tuple[PictureResult, ...]
    summary: Summary
    """As it would end; `files` counts what there would be."""
