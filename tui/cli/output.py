"""How the command line speaks: data to stdout, talk and errors to stderr, one JSON value where it was asked for.

Used by every command. Nothing printed here is read as markup, so text from files cannot style or break a screen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import VocableError

if TYPE_CHECKING:
    from pydantic import BaseModel

DONE = 0
FAILED = 1
MISUSED = 2
"""Wrong use: an argument, a recipe, a name or a reference that was refused."""
INTERRUPTED = 130

_MISUSE = frozenset({"usage", "recipe", "request", "template", "terminal"})
"""First words of the error codes that mean: what was asked for is impossible."""
_MISUSE_CODES = frozenset(
    {
        *("run.unknown", "run.ambiguous", "run.state", "run.name_taken", "job.unknown"),
        *("caption.extra", "caption.missing", "preprocess.destination", "preprocess.same"),
        *("model.unknown", "device.unknown", "device.absent", "dataset.missing", "dataset.empty"),
        *("embedding.exists", "embedding.name", "embedding.too_long", "embedding.several", "embedding.halves"),
        *("hypernetwork.exists", "hypernetwork.name", "hypernetwork.unknown", "embedding.unknown"),
        *("hypernetwork.model", "hypernetwork.widths"),
        *("file.absent", "file.exists", "picture.size", "picture.small", "picture.silent", "workspace.unusable"),
    }
)

_PIPE_WIDTH = 4000
"""Columns for tables that go into a pipe: wide enough never to cut a path."""


def say(text: str) -> None:
    """Tell the user something, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_text(text: str) -> None:
    """Print data for people on stdout."""
    print(text, flush=True)


def print_json(value: Any) -> None:
    """Print one JSON value on one line of stdout; pydantic models may stand at the top or in a list."""
    print(json.dumps(to_plain(value)), flush=True)


def to_plain(value: BaseModel | Sequence[BaseModel] | Any) -> Any:
    """JSON-ready form of a reply of the service."""
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, wrapped: bool = False) -> None:
    """Print aligned columns on stdout; a terminal too narrow for them cuts cells, a pipe never does.

    With `wrapped` the last column holds sentences, which go on in the next line instead.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, header in enumerate(headers, 1):
        may_wrap = wrapped and number == len(headers)
        table.add_column(header, no_wrap=not may_wrap, overflow="fold" if may_wrap else "ellipsis")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False).print(table)


def print_fields(fields: Iterable[tuple[str, str, Any]], *, as_json: bool) -> None:
    """Print options, each `(name, what it means, default)` as `engine.recipe.iter_fields` yields them."""
    if as_json:
        print_json([{"option": name, "default": default, "about": about} for name, about, default in fields])
    else:
        rows = [(name, _show_default(default), about) for name, about, default in fields]
        print_table(("OPTION", "DEFAULT", "MEANING"), rows, wrapped=True)


def _show_default(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_show_default, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def report_error(error: VocableError, *, as_json: bool) -> int:
    """Tell the user of an error and return the exit code that goes with it."""
    if as_json:
        print_json({"error": error.to_dict()})
    faults = getattr(error, "faults", None)
    if faults and len(faults) > 1:
        say(f"error: The recipe has {len(faults)} faults:")
        for fault in faults:
            say(f"  {fault.path}: {fault.message}")
    else:
        say(f"error: {error.title}")
    if error.hint:
        say(f"hint: {error.hint}")
    return exit_code(error)


def exit_code(error: VocableError) -> int:
    """2 when the request itself was wrong, 1 when something failed."""
    wrong = error.code in _MISUSE_CODES or error.code.split(".")[0] in _MISUSE
    return MISUSED if wrong else FAILED
