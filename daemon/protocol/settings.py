"""Settings of a service, as clients read and change them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class SettingsView(BaseModel):
    """The settings in force, those of `vocable.toml` and the defaults of the others."""

    revision: str
    """Stands for this content of the file; goes into `If-Match` of a change."""
    path: str
    settings: dict[str, dict[str, Any]]
    """Groups (`service`, `paths`, `deadlines`, `preprocess`) with their keys; docs/settings.md says what each means."""


class ChangeSettings(BaseModel, extra="forbid"):
    """Body of `PUT /v1/settings`."""

    settings: dict[str, dict[str, Any]]
    """All of them; what is left out gets its default."""
