"""What a recipe's `data` can name: prompt templates and datasets. Names and paths are escaped; prompts and captions are
as they are, to be edited, and whoever shows them escapes them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from daemon.protocol.runs import ErrorInfo


class TemplateView(BaseModel):
    """One prompt template."""

    name: str
    """As `data.template` takes it."""
    path: str
    shipped: bool
    """It comes with the program; a file of the same name in templates/ replaces it."""
    prompts: int = 0
    error: ErrorInfo | None = None
    """Why it cannot be used."""


class TemplateDetail(TemplateView):
    """`GET /v1/templates/NAME`."""

    lines: list[str] = Field(default_factory=list)
    """Its prompts, with `[name]` and `[filewords]` in their places."""


class TemplateList(BaseModel):
    """`GET /v1/templates`, by name."""

    templates: list[TemplateView]


class DatasetView(BaseModel):
    """One folder of pictures."""

    name: str
    """As `data.folder` takes it."""
    path: str
    pictures: int
    """Files that look like pictures, by their ending; those in sub-folders do not count."""
    captions: int
    """Pictures with a text file of the same name."""


class DatasetList(BaseModel):
    """`GET /v1/datasets`, by name."""

    datasets: list[DatasetView]


class PictureView(BaseModel):
    """One picture of a dataset."""

    name: str
    size: int
    """Bytes."""
    modified_at: float
    caption: str = ""
    """What training puts in the place of `[filewords]`: the text on one line, or else what the file's name says."""
    text: str | None = None
    """The text file beside the picture, as it is; null when there is none."""
    error: ErrorInfo | None = None
    """Why the caption cannot be used."""


class DatasetDetail(DatasetView):
    """`GET /v1/datasets/NAME`."""

    files: list[PictureView]
    """In natural order; at most 10,000, and none whose name cannot be shown as it is."""


class CaptionChange(BaseModel, extra="forbid"):
    """Another text beside one picture."""

    picture: str
    text: str | None = Field(max_length=16_000)
    """The new text; null removes the file."""
    was: str | None = Field(max_length=64_000)
    """The text that it replaces, as `PictureView.text` has it."""


class ChangeCaptions(BaseModel, extra="forbid"):
    """Body of `PUT /v1/datasets/NAME/captions`: all changes are made, or none when one `was` holds no longer."""

    changes: list[CaptionChange] = Field(min_length=1, max_length=10_000)


class CaptionsReply(BaseModel):
    """What was changed."""

    undo: list[CaptionChange]
    """Changes that take these back."""
