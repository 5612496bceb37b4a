"""From a recipe file, flags and `--set` to one recipe; quick faults are found here, all at once, before any service.

Used by `train`. Relative paths are made absolute, since the service has another current folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import Fault, RecipeError, VocableError
from engine.recipe import Recipe, build_recipe, set_field


def make_recipe(
    source: Path | None, flags: Mapping[str, Any], assignments: Sequence[str], *, cwd: Path | None, datasets: Path
) -> Recipe:
    """A checked recipe: the file's values, overridden by flags, overridden by assignments.

    Args:
        source: a recipe in TOML, or None.
        flags: dotted path of a field to its value; None leaves the field alone.
        assignments: `group.key=value`, as `--set` takes them.
        cwd: where relative paths of flags start; those of the file start at its folder. None: all paths are another
            machine's, and so names or whole ones.
        datasets: the workspace's datasets/, whose folders may be named without a path.

    Raises:
        RecipeError: with every fault of all three sources.
        VocableError: `recipe.unreadable`.
    """
    values = read_values(source) if source else {}
    if source and cwd:
        resolve_paths(values, source.resolve().parent, datasets)
    given: dict[str, Any] = {}
    for path, value in flags.items():
        if value is not None:
            _set_value(given, path, value)
    faults = []
    for assignment in assignments:
        try:
            set_field(given, assignment)
        except RecipeError as error:
            faults += error.faults
    if cwd:
        resolve_paths(given, cwd, datasets)
    _merge(values, given)
    if cwd is None:
        faults += _relative_paths(values)
    try:
        recipe = build_recipe(values)
    except RecipeError as error:
        raise RecipeError(faults + error.faults) from None
    if faults:
        raise RecipeError(faults)
    return recipe


def read_values(source: Path) -> dict[str, Any]:
    """The plain values of a recipe file, not yet checked."""
    try:
        text = source.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise _unreadable(source, "it is a folder", f"For a folder of pictures: --images {source}.") from None
    except OSError as error:
        raise _unreadable(source, error.strerror or str(error), "Check the path.") from None
    except UnicodeDecodeError:
        raise _unreadable(source, "it is not UTF-8 text", "A recipe is a TOML file.") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([Fault(str(source), f"is not TOML: {error}")]) from None


def resolve_paths(values: dict[str, Any], base: Path, datasets: Path) -> None:
    """Make relative paths in nested plain values absolute, in place; bare names stay names."""
    data = values.get("data")
    if isinstance(data, dict):
        if isinstance(data.get("folder"), str) and data["folder"]:
            data["folder"] = resolve_folder(data["folder"], base, datasets)
        if isinstance(data.get("template"), str):
            data["template"] = _resolve_reference(data["template"], base)
    if isinstance(values.get("model"), str):
        values["model"] = _resolve_reference(values["model"], base)


def _relative_paths(values: Mapping[str, Any]) -> list[Fault]:
    """Paths that mean nothing on another machine."""
    data = values.get("data")
    named = {"model": values.get("model")}
    if isinstance(data, dict):
        named |= {"data.folder": data.get("folder"), "data.template": data.get("template")}
    return [
        Fault(path, f"'{text}' is relative; for another machine give a name there or a whole path")
        for path, text in named.items()
        if isinstance(text, str) and ("/" in text or text.startswith("~")) and not Path(text).is_absolute()
    ]


def resolve_folder(text: str, base: Path, datasets: Path) -> str:
    """A folder of pictures is a path first, and a name in datasets/ only where no such path exists."""
    path = base / Path(text).expanduser()
    is_name = "/" not in text and not path.exists() and (datasets / text).is_dir()
    return text if is_name else str(path.resolve())


def _resolve_reference(text: str, base: Path) -> str:
    """Models and templates are names first; what holds a slash or begins with a tilde is a path."""
    return str((base / Path(text).expanduser()).resolve()) if "/" in text or text.startswith("~") else text


def _set_value(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, key = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value


def _merge(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _unreadable(source: Path, reason: str, hint: str) -> VocableError:
    return VocableError("recipe.unreadable", f"The recipe {source} cannot be read: {reason}.", hint)
