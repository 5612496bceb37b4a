"""What the form for a new run shows for each kind of run, and what it begins with. Pure; made from the recipe.

Used by the form alone.
"""

from __future__ import annotations

from typing import Any, get_args

from engine.recipe import Kind, Start, build_recipe, foreign_options, iter_fields

KINDS: tuple[str, ...] = get_args(Kind)
ACTIVATIONS: tuple[str, ...] = get_args(Start.model_fields["activation"].annotation)


def hidden_paths(kind: str) -> frozenset[str]:
    """Fields that mean nothing for a kind; for what is no kind, as for an embedding."""
    return frozenset(f"start.{name}" for name in foreign_options(kind if kind in KINDS else KINDS[0]))


def list_defaults(kind: str) -> dict[str, str]:
    """What each field of the recipe begins with, as one types it; empty for a field without a default."""
    plain = {path: default for path, _, default in iter_fields()}
    if kind in KINDS:
        chosen = build_recipe({"kind": kind, "name": "x", "data": {"folder": "x"}}).model_dump()
        plain |= {path: _find(chosen, path) for path, default in plain.items() if default is not None}
    return {path: show_value(value) for path, value in plain.items()}


def show_value(value: Any) -> str:
    """A value as one types it into a field."""
    if isinstance(value, list | tuple):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return "" if value is None else str(value)


def _find(values: dict[str, Any], path: str) -> Any:
    found: Any = values
    for key in path.split("."):
        found = found[key]
    return found
