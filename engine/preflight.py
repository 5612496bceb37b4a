"""What the disk knows about a recipe before anything is loaded: is all there that training will need?

Called by the service when a run is created, and by the worker again before it trains. No torch; no picture is decoded.
Every fault is reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engine.dataset.captions import read_caption
from engine.dataset.folder import expect_folder, find_folder, list_pictures
from engine.dataset.templates import find_template, read_template
from engine.errors import Faults, RecipeError, VocableError
from engine.hypernetwork.family import check_family
from engine.models.catalog import ModelEntry, find_model
from engine.recipe import Recipe

_Found = TypeVar("_Found")

_MAX_CAPTION_FAULTS = 5


@dataclass(frozen=True)
class Resolved:
    """The things on disk that a recipe's names stand for."""

    model: ModelEntry
    folder: Path
    template: Path
    lines: tuple[str, ...]
    """Prompts of the template; `[name]` in each, unless a hypernetwork is trained."""
    pictures: tuple[Path, ...]
    """In natural order; at least one for a run that begins. Whether each can be decoded is not known yet."""


def check_recipe(
    recipe: Recipe,
    *,
    models: Sequence[Path],
    datasets: Sequence[Path],
    templates: Sequence[Path],
    cache: Path | None = None,
    wait: bool = True,
    repeats: bool = False,
) -> Resolved:
    """Look up everything that `recipe` names.

    Args:
        models, datasets, templates: folders in which names are looked up; what is shipped is always found.
        cache, wait: of the model's hash, see `engine.models.catalog.find_model`.
        repeats: the run goes on with pictures that its journal names; its folder may be missing or hold none.

    Raises:
        RecipeError: with every fault: unknown or incomplete model, missing or empty folder, unreadable captions,
            missing template, a prompt without `[name]`, a hypernetwork for a family of models that has none.
    """
    faults = Faults()
    model = _attempt(faults, "model", lambda: find_model(recipe.model, models, cache=cache, wait=wait))
    if model and recipe.kind == "hypernetwork":
        _attempt(faults, "model", lambda: check_family(model))
    of_folder = Faults() if repeats else faults
    found = _attempt(of_folder, "data.folder", lambda: find_folder(recipe.data.folder, datasets))
    pictures = _attempt(of_folder, "data.folder", lambda: list_pictures(found)) if found else None
    _check_captions(of_folder, pictures or ())
    folder = found
    if repeats:
        folder, pictures = found or expect_folder(recipe.data.folder, datasets), pictures or ()
    template = _attempt(faults, "data.template", lambda: find_template(recipe.data.template, templates))
    lines = _attempt(faults, "data.template", lambda: _read_lines(template, recipe)) if template else None
    if faults.items or not (model and folder and pictures is not None and template and lines):
        raise RecipeError(faults.items)
    return Resolved(model, folder, template, lines, pictures)


def _read_lines(template: Path, recipe: Recipe) -> tuple[str, ...]:
    return read_template(template, needs_name=recipe.kind == "embedding")


def _attempt(faults: Faults, path: str, find: Callable[[], _Found]) -> _Found | None:
    try:
        return find()
    except VocableError as error:
        faults.add(path, _message(error))
        return None


def _check_captions(faults: Faults, pictures: Sequence[Path]) -> None:
    found: dict[str, None] = {}
    for picture in pictures:
        try:
            read_caption(picture)
        except VocableError as error:
            found[_message(error)] = None
    for message in list(found)[:_MAX_CAPTION_FAULTS]:
        faults.add("data.folder", message)
    if len(found) > _MAX_CAPTION_FAULTS:
        faults.add("data.folder", f"{len(found) - _MAX_CAPTION_FAULTS} more captions are unreadable")


def _message(error: VocableError) -> str:
    """An error as part of a list of faults, which has stops of its own."""
    title = error.title[:1].lower() + error.title[1:]
    return f"{title} {error.hint}".strip().rstrip(".")
