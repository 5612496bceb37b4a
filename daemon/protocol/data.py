"""Replies about what a recipe's `data` can name: prompt templates and datasets. Names and paths are escaped."""

from __future__ import annotations

from pydantic import BaseModel

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
