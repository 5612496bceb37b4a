"""The one family of errors that may reach a user.

Every layer raises `VocableError`: what happened (with the value), and what to do. Codes are stable dotted
strings; they cross the wire, classes do not. Nothing here imports anything heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.text import end_sentence


class VocableError(Exception):
    """An error that a user can act on.

    Args:
        code: stable dotted identifier, e.g. `dataset.empty`; programs compare this.
        title: one sentence that says what happened, with the offending value.
        hint: one sentence that says what to do; may be empty when the title says it.
    """

    def __init__(self, code: str, title: str, hint: str = "") -> None:
        super().__init__(f"{title} {hint}".strip())
        self.code = code
        self.title = title
        self.hint = hint

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "title": self.title, "hint": self.hint}


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe."""

    path: str
    """Dotted path of the field, e.g. `train.learn_rate`."""
    message: str
    """What is wrong with the value, and what would be right."""


@dataclass(frozen=True)
class Faults:
    """Collects the faults of one recipe, so that all are reported at once."""

    items: list[Fault] = field(default_factory=list)

    def add(self, path: str, message: str) -> None:
        self.items.append(Fault(path, message))


class RecipeError(VocableError):
    """A recipe with one or more faults; `faults` holds all of them in the order of the fields."""

    def __init__(self, faults: list[Fault]) -> None:
        lines = "; ".join(f"{fault.path}: {fault.message}" for fault in faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        title = end_sentence(f"The recipe has {count}: {lines}")
        super().__init__("recipe.invalid", title, "Correct these fields and try again.")
        self.faults = faults

    def to_dict(self) -> dict[str, Any]:
        faults = [{"path": fault.path, "message": fault.message} for fault in self.faults]
        return {**super().to_dict(), "faults": faults}
