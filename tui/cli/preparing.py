"""From arguments, flags and `--set` to one request for preparing pictures; faults are told before any service is asked.

Used by `preprocess`. The options' names, descriptions and ranges are those of `engine.preprocess.request`, which comes
with the protocol.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from daemon.protocol.preprocess import PreprocessJob, PreprocessOptions
from engine.errors import RecipeError, VocableError
from engine.recipe import iter_fields, set_field
from engine.text import end_sentence
from tui.cli.output import print_fields
from tui.cli.recipes import resolve_folder
from tui.cli.session import Session, check_paths


def build_job(
    session: Session,
    source: str,
    destination: str | None,
    flags: Mapping[str, Any],
    assignments: Sequence[str],
    *,
    dry_run: bool,
) -> PreprocessJob:
    """A checked request. Assignments go before flags.

    Raises:
        VocableError: `usage.invalid` with every fault, `usage.remote_path`.
    """
    options: dict[str, Any] = {}
    for path, value in flags.items():
        if value is not None:
            _set(options, path, value)
    for assignment in assignments:
        try:
            set_field(options, assignment)
        except RecipeError as error:
            raise _invalid([f"{fault.path}: {fault.message}" for fault in error.faults]) from None
    source, destination = _resolve(session, source, destination)
    try:
        return PreprocessJob.model_validate(
            {"source": source, "destination": destination, "options": options, "dry_run": dry_run}
        )
    except ValidationError as error:
        raise _invalid([_describe(dict(fault)) for fault in error.errors()]) from None


def list_options(*, as_json: bool) -> None:
    """Print every option with its default and what it means."""
    print_fields(iter_fields(PreprocessOptions), as_json=as_json)


def _resolve(session: Session, source: str, destination: str | None) -> tuple[str, str]:
    """Both folders as the service takes them: whole paths, or names in datasets/.

    The source is a path first, and a name only where no such path exists; a destination without a slash is a name,
    since that is where datasets belong.
    """
    if session.host:
        check_paths(session, *(path for path in (source, destination) if path and _is_path(path)))
    else:
        source = resolve_folder(source, Path.cwd(), session.workspace.datasets)
        if destination is not None and _is_path(destination):
            destination = str((Path.cwd() / Path(destination).expanduser()).resolve())
    return source, destination or _name_like(source, session)


def _is_path(text: str) -> bool:
    return "/" in text or text.startswith("~") or text in (".", "..")


def _name_like(source: str, session: Session) -> str:
    """A name in datasets/ after the source's, and not the source itself."""
    name = Path(source).name
    is_dataset = not _is_path(source) or Path(source).parent == session.workspace.datasets
    return f"{name}-prepared" if is_dataset else name


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, key = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value


def _describe(fault: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in fault["loc"]).removeprefix("options.")
    if fault["type"] == "extra_forbidden":
        known = [known for known, _, _ in iter_fields(PreprocessOptions)]
        nearest = difflib.get_close_matches(name, known, n=1)
        return f"{name}: is not known" + (f"; did you mean {nearest[0]}?" if nearest else "")
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{name}: is a group of options, not one"
    if fault["type"] == "string_pattern_mismatch":
        return f"{name}: '{fault['input']}' is no colour like #ffffff"
    message = str(fault["msg"]).removeprefix("Value error, ").split(", unable to parse")[0]
    return f"{name}: {message[:1].lower()}{message[1:]}"


def _invalid(faults: Sequence[str]) -> VocableError:
    return VocableError("usage.invalid", end_sentence("; ".join(faults)), "See: vocable preprocess --options")
