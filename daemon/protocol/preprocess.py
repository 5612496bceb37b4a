"""Preparing a folder of pictures: the request, and what its job tells in the end."""

from __future__ import annotations

from pydantic import BaseModel, Field

from engine.preprocess.request import PreprocessOptions as PreprocessOptions
from engine.preprocess.request import PreprocessRequest

MAX_LISTED = 500
"""Pictures that a reply lists one by one; its counts are of all, and `preprocess.json` has them all."""

MAX_OUTPUTS = 50
"""Prepared pictures that a reply lists of one source."""

MAX_CAPTION = 200
"""Characters of a caption in a reply."""


class PreprocessJob(PreprocessRequest):
    """Body of `POST /v1/preprocess`."""

    dry_run: bool = Field(False, description="Only tell what would be done; nothing is written.")


class OutputView(BaseModel):
    """A prepared picture; names are escaped for terminals, here and below."""

    name: str
    step: str
    """What made it: `split`, `focal crop`, `auto size`, `keep size` or `resize`."""
    width: int
    height: int
    flipped: bool
    caption: str


class PictureView(BaseModel):
    """What was, or would be, done to one source picture."""

    source: str
    state: str
    """`made`, `unchanged` since an earlier job, `duplicate` (left out), or `failed`."""
    outputs: list[OutputView]
    """The first 50."""
    notes: list[str]
    warnings: list[str]
    reason: str
    """Why it failed, or whose duplicate it is; else empty."""


class PreprocessResult(BaseModel):
    """`result` of a job that prepares pictures. A cancelled one has it too, if it did not have to be killed: what had
    been done by then."""

    destination: str
    """Absolute path."""
    record: str
    """Path of `preprocess.json`, which tells what was done to each picture; empty in a dry run."""
    dry_run: bool
    device: str
    """Where captions were made: `cpu`, `cuda`; empty without a model."""
    total: int
    """Source pictures."""
    made: int
    unchanged: int
    duplicates: int
    failed: int
    files: int
    """Prepared pictures that the destination now holds of these sources."""
    uncaptioned: int
    """Pictures just made of which nobody said anything, although captions were asked for."""
    left: list[str]
    """Files made earlier of pictures that the source no longer holds."""
    removed: list[str]
    """Such files that were removed, as asked."""
    passed_over: list[str]
    """Names in the source that are no pictures by their ending, the first 20."""
    pictures: list[PictureView]
    """Of a dry run all, else those with something to tell: failed, left out, or warned of. The first 500."""
