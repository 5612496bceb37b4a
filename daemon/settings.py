"""The optional `vocable.toml` of a workspace: read by the service at its start and at SIGHUP, written by the API.

`python -m daemon.settings > docs/settings.md` writes the page about it; a test says that the committed one is current.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
import textwrap
import threading
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from daemon.worker.pulse import Deadlines
from engine.errors import VocableError
from engine.files import write_atomically
from engine.text import end_sentence, escape


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _check_folder(text: str) -> str:
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no user for {text.partition('/')[0]}") from None
    if "\0" in text:
        raise ValueError("a path holds no NUL")
    return text


_Folder = Annotated[str, AfterValidator(_check_folder)]


class ServiceSettings(_Table):
    """The service itself."""

    idle_unload_s: float = Field(600, ge=1, le=10**9, strict=False)
    """Seconds without work after which the worker ends and the device is free."""
    group: str = ""
    """Members of this group of the system may use the service too; empty: only its own user and root."""


class PathSettings(_Table):
    """Folders looked into after the workspace's own; relative ones begin at the workspace. Of an installation of webui
    or ComfyUI the root can be named: what belongs to it is found inside."""

    models: list[_Folder] = Field(default_factory=list)
    """Base models: folders in the diffusers layout, or single files."""
    datasets: list[_Folder] = Field(default_factory=list)
    """Folders of pictures, found by the name that a recipe gives in `data.folder`."""
    templates: list[_Folder] = Field(default_factory=list)
    """Prompt templates, found by the name that a recipe gives in `data.template`."""
    runs: _Folder = ""
    """Folder that runs are kept in instead of runs/; those that are there already stay where they are."""


class PreprocessSettings(_Table):
    """Preparing pictures."""

    blip: _Folder = "models/blip"
    """Folder of a BLIP captioning model in the layout of transformers; a relative one begins at the workspace."""
    tagger: _Folder = "models/tagger"
    """Folder of a WD tagger (`model.onnx`, `selected_tags.csv`); a relative one begins at the workspace."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto` captions on a GPU that has room while no run trains, else on the CPU; `cpu` leaves GPUs alone."""
    processes: int = Field(0, ge=0, le=256)
    """Pictures that are prepared side by side; 0: one for each core."""


class Settings(_Table):
    service: ServiceSettings = Field(default_factory=ServiceSettings)
    paths: PathSettings = Field(default_factory=PathSettings)
    deadlines: Deadlines = Field(default_factory=Deadlines)
    preprocess: PreprocessSettings = Field(default_factory=PreprocessSettings)


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
    return _validate(path, values)


def read_revision(path: Path) -> tuple[Settings, str]:
    """The settings, and what stands for this content of the file. Raises VocableError `settings.invalid`."""
    with _WRITING:
        return read_settings(path), _revision(_read_bytes(path))


def write_settings(path: Path, values: dict[str, Any], revision: str) -> Settings:
    """Put other settings into the file, whose comments stay; what `values` lacks gets its default.

    Raises:
        VocableError: `settings.stale` when the file is not of this revision any more; `settings.invalid`, `disk.*`.
            Nothing was written then.
    """
    with _WRITING:
        data = _read_bytes(path)
        if _revision(data) != revision:
            title = "The settings changed meanwhile, or no If-Match tells which ones are meant."
            raise VocableError("settings.stale", title, "Read them again and repeat the change.")
        settings = _validate(path, values)
        read_settings(path)  # what is faulty already is for people to put right
        document = tomlkit.parse(data.decode())
        _merge(document, settings)
        write_atomically(path, tomlkit.dumps(document).encode())
        return settings


_WRITING = threading.Lock()
"""Nobody writes between a look at the file and what follows from it."""


def _merge(document: tomlkit.TOMLDocument, settings: Settings) -> None:
    """Change what differs from the defaults or stands in the document already."""
    for group, fields in settings.model_dump().items():
        defaults = Settings().model_dump()[group]
        table: Any = document.get(group, {})
        changed = {key: value for key, value in fields.items() if key in table or value != defaults[key]}
        if changed and group not in document:
            document[group] = tomlkit.table()
            table = document[group]
        for key, value in changed.items():
            if key not in table or table[key] != value:
                table[key] = value


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from None


def _revision(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _validate(path: Path, values: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _invalid(path, "; ".join(_describe(dict(fault)) for fault in error.errors())) from None


def _describe(fault: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        message = fault["msg"].removeprefix("Value error, ")
        return f"{name}: {message[:1].lower()}{message[1:]}"
    nearest = difflib.get_close_matches(name, _known_keys(), n=1)
    return f"{name} is not known" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _known_keys() -> list[str]:
    tables = {name: type(table) for name, table in Settings()}
    return [*tables, *(f"{name}.{key}" for name, table in tables.items() for key in table.model_fields)]


def _invalid(path: Path, reason: str) -> VocableError:
    title = end_sentence(f"{path} cannot be used: {escape(reason)}")
    return VocableError("settings.invalid", title, "Correct it and try again.")


_PAGE = """\
# Settings

<!-- made by: python -m daemon.settings > docs/settings.md -->

`vocable.toml` in the workspace is optional, and so is everything in it. The service reads it at its start and at SIGHUP
(`systemctl reload vocable`), and `PUT /v1/settings` changes it. Faulty settings change nothing: the old ones stay in
force, and `vocable daemon status` says what is wrong; `vocable doctor` says it without a service, too. Deadlines change
with the next worker, the group and the folder of the runs with the next start of the service. These are the defaults:

```toml
{toml}
```
"""


def make_page() -> str:
    """The page about the settings: every key with its meaning and default, as a file that can be used."""
    return _PAGE.format(toml="\n\n".join(_document_table(name, table) for name, table in Settings()))


def _document_table(name: str, table: BaseModel) -> str:
    lines = [*_as_comment(" ".join((type(table).__doc__ or "").split())), f"[{name}]"]
    for key, field in type(table).model_fields.items():
        lines += [*_as_comment(field.description or ""), f"{key} = {tomlkit.item(getattr(table, key)).as_string()}"]
    return "\n".join(lines)


def _as_comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 110, initial_indent="# ", subsequent_indent="# ")


if __name__ == "__main__":
    sys.stdout.write(make_page())
