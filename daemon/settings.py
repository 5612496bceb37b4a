"""The optional `vocable.toml` of a workspace, read by the service when it starts and at each SIGHUP."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import VocableError
from engine.text import escape


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ServiceSettings(_Table):
    idle_unload_s: float = Field(600, ge=1, le=10**9, strict=False)
    """Seconds without work after which the worker ends and the device is free."""
    group: str = ""
    """Members of this group of the system may use the service too; empty: only its own user and root."""


class PathSettings(_Table):
    """Folders looked into after the workspace's own; relative ones begin at the workspace."""

    models: list[str] = Field(default_factory=list)
    datasets: list[str] = Field(default_factory=list)
    templates: list[str] = Field(default_factory=list)


class Settings(_Table):
    service: ServiceSettings = Field(default_factory=ServiceSettings)
    paths: PathSettings = Field(default_factory=PathSettings)


def read_settings(path: Path) -> Settings:
    """Read the settings; a missing file means the defaults.

    Raises:
        VocableError: `settings.invalid` with every fault; an unknown key names the nearest known one.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(path, f"it is not TOML: {error}") from None
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _invalid(path, "; ".join(_describe(dict(fault)) for fault in error.errors())) from None


def _describe(fault: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
    nearest = difflib.get_close_matches(name, _known_keys(), n=1)
    return f"{name} is not known" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _known_keys() -> list[str]:
    tables: dict[str, type[_Table]] = {"service": ServiceSettings, "paths": PathSettings}
    return [*tables, *(f"{name}.{key}" for name, table in tables.items() for key in table.model_fields)]


def _invalid(path: Path, reason: str) -> VocableError:
    return VocableError("settings.invalid", f"{path} cannot be used: {escape(reason)}.", "Correct it and try again.")
