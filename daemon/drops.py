"""Recipes that lie in a watched folder: read whole, resolved, and, when refused, answered by a file beside them.

Used by the inbox and by datasets that bring their recipe. What such a file holds is checked like a request; nothing
here trusts its name, its size or its kind.
"""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.inspector.intake import take_in
from daemon.runs import Run
from daemon.watch import Stamp, stamp_of
from engine.errors import RecipeError, VocableError
from engine.files import write_atomically
from engine.text import escape

MAX_BYTES = 1 << 20
"""Largest recipe that is read."""

RETRY_S = (1.0, 2.0, 4.0, 8.0, 60.0)
"""Waits before a recipe is tried again that could not be taken for now; the last one goes on for ever."""

BELIEVED_AFTER = 3
"""A text that is no TOML may be one whose end is still to come; after so many tries it is what it is."""

_MAX_LINE = 16_000
"""Longest line in characters: twice what the longest prompt takes. The parser's time grows with its square."""

_FOR_NOW = frozenset(
    {
        "service.stopping",
        "service.degraded",
        "history.failed",
        "disk.full",
        "disk.write",
        "file.busy",
        "file.unreadable",
    }
)
_INCOMPLETE = "recipe.unreadable"
_SILENT = frozenset({"service.stopping", "service.degraded", "file.busy", _INCOMPLETE})
"""Of these people learn elsewhere, or they pass by themselves."""

Enqueue = Callable[[Mapping[str, Any], str], Awaitable[Run]]
"""Checks plain values like a request and queues the run; the second argument is its idempotency key."""

Tell = Callable[[Mapping[str, Any]], None]
"""Publishes what became of a recipe: see topic `recipe` of StreamLine."""


@dataclass(frozen=True)
class Drop:
    """A recipe as it was read."""

    values: dict[str, Any]
    """Not checked yet, but plain enough for JSON."""
    sha256: str
    stamp: Stamp


def read_drop(path: Path) -> Drop:
    """Read a recipe that anybody may have put there. Runs in a thread.

    Raises:
        VocableError: see take_in; `recipe.unreadable` for what is no text or no TOML.
    """
    try:
        stamp = stamp_of(path.lstat())
        content = take_in(path, max_bytes=MAX_BYTES)
        is_same = stamp_of(path.lstat()) == stamp
    except OSError:
        is_same = False
    if not is_same:
        raise VocableError("file.busy", "The file is still being written.", "It is read again by itself.")
    return Drop(_parse(content.data), content.sha256, stamp)


def resolve_folders(values: Mapping[str, Any], root: Path, base: Path) -> dict[str, Any]:
    """Plain values whose relative paths are absolute. Names, and folders below those of that name, stay names.

    Args:
        root: the workspace, where a path begins whose first folder is `datasets/`, `models/` or `templates/`.
        base: where a path begins whose first folder is `.` or `..`.
    """
    resolved = dict(values)
    if isinstance(values.get("model"), str):
        resolved["model"] = _resolve(values["model"], "models", root, base)
    if isinstance(values.get("data"), Mapping):
        data = dict(values["data"])
        for key, home in (("folder", "datasets"), ("template", "templates")):
            if isinstance(data.get(key), str):
                data[key] = _resolve(data[key], home, root, base)
        resolved["data"] = data
    return resolved


def may_pass(error: VocableError, tries: int) -> bool:
    """Whether a recipe that was not taken is to be tried again as it is, after `tries` tries."""
    return error.code in _FOR_NOW or (error.code == _INCOMPLETE and tries < BELIEVED_AFTER)


def describe_problem(path: Path, error: VocableError) -> str:
    """What to show of a recipe that is tried again; empty where there is nothing to do about it."""
    if error.code in _SILENT:
        return ""
    return f"The recipe {path} is not taken yet: {error.title} {error.hint}".strip()


def write_reason(path: Path, name: str, error: VocableError, advice: str) -> None:
    """Write a file for people that says why a recipe was refused: every fault, and what to do.

    Raises:
        VocableError: `disk.full` or `disk.write`.
    """
    faults = [(fault.path, fault.message) for fault in error.faults] if isinstance(error, RecipeError) else []
    lines = [f"{place}: {message.rstrip('.')}." for place, message in faults] or [error.title, error.hint]
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    head = [f"{escape(name)} was refused ({when}). Nothing was queued.", ""]
    text = [escape(line, 2000) for line in lines if line]
    write_atomically(path, "\n".join([*head, *text, "", advice, ""]).encode(), durable=False)


def describe_refusal(path: Path, error: VocableError) -> dict[str, Any]:
    reason = escape(str(error), 2000)
    return {"path": escape(str(path), 5000), "outcome": "refused", "run": "", "code": error.code, "reason": reason}


def describe_queued(path: Path, run: Run) -> dict[str, Any]:
    return {"path": escape(str(path), 5000), "outcome": "queued", "run": run.id, "code": "", "reason": ""}


def _parse(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        title = f"The file is not UTF-8 text (byte {error.start + 1})."
        raise VocableError(_INCOMPLETE, title, "Save it as UTF-8.") from None
    longest = max((len(line) for line in re.split(r"[\r\n]", text)), default=0)
    if longest > _MAX_LINE:
        title = f"The file has a line of {longest} characters; {_MAX_LINE} are possible."
        raise VocableError("file.size", title, "Write it in shorter lines.")
    try:
        values = tomllib.loads(text)
        json.dumps(values, default=str)  # numbers of thousands of digits and the like, which nothing later can carry
    except (ValueError, RecursionError) as error:
        raise VocableError(
            _INCOMPLETE, f"The file is not TOML: {error}.", "Look at quotes, brackets and equals signs there."
        ) from None
    return values


def _resolve(text: str, home: str, root: Path, base: Path) -> str:
    first, slash, rest = text.partition("/")
    if first in (".", ".."):
        return str((base / text).resolve())
    return str(root / text) if slash and rest and first == home else text
