"""Prompt templates: text files with one prompt a line, where `[name]` is the word and `[filewords]` the caption.

Called by preflight and training. No torch. Shipped templates are package data; those of the workspace come first.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Sequence
from pathlib import Path

from engine.errors import VocableError

MAX_TEMPLATE_BYTES = 1024 * 1024

_PLACEHOLDER = re.compile(r"\[(?:name|filewords)\]")
_EMPTY_FILEWORDS = re.compile(r"(?:\s*,|\s+(?:of|with|in|on|at|and|showing))?\s*\[filewords\]", re.IGNORECASE)
"""The place of an empty caption together with the comma or small word that leads to it."""


def shipped_templates() -> Path:
    """The folder of the templates that come with the program."""
    return Path(str(importlib.resources.files("templates")))


def find_template(reference: str, folders: Sequence[Path]) -> Path:
    """Find a template by path or by name, with or without `.txt`: in `folders` first, then among the shipped ones.

    Raises:
        VocableError: `template.unknown` with the names there are.
    """
    try:
        given = Path(reference).expanduser()
    except RuntimeError:
        given = Path(reference)
    places = [given.parent] if given.is_absolute() else [*folders, shipped_templates()]
    relative = Path(given.name) if given.is_absolute() else given
    for place in places:
        for candidate in (place / relative, place / f"{relative}.txt"):
            if candidate.is_file():
                return candidate
    known = sorted({path.stem for place in [*folders, shipped_templates()] for path in place.glob("*.txt")})
    raise VocableError(
        "template.unknown",
        f"There is no prompt template '{reference}'.",
        f"Give the path of a text file, or one of these names: {', '.join(known)}.",
    )


def read_template(path: Path, *, needs_name: bool = True) -> tuple[str, ...]:
    """The prompts of a template: lines stripped, without blank ones and those that begin with `#`.

    Args:
        needs_name: each prompt must hold `[name]`, as for a word; else `[filewords]` will do, as for a hypernetwork.

    Raises:
        VocableError: `template.invalid` when it cannot be read, holds no prompt, or a prompt lacks its placeholder.
    """
    lines = [(number, line.strip()) for number, line in enumerate(_read_text(path).splitlines(), 1)]
    prompts = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not prompts:
        raise _fault(path, "holds no prompt", "Write one prompt a line, each with [name] in it.")
    for number, line in prompts:
        if "[name]" not in line and (needs_name or "[filewords]" not in line):
            raise _fault(
                path,
                f"has no [name] in line {number} ('{line[:60]}')",
                "Put [name] where the word belongs, in each line; for a hypernetwork, [filewords] will do.",
            )
    return tuple(line for _, line in prompts)


def fill_template(line: str, *, name: str, filewords: str) -> str:
    """Make a prompt of a template line. Where `filewords` is empty, no stray comma or preposition stays behind.

    Both places are filled at once, so a caption that holds the text `[name]` stays as it is.
    """
    if not filewords:
        line = _EMPTY_FILEWORDS.sub("", line).strip(" ,")
    values = {"[name]": name, "[filewords]": filewords}
    return _PLACEHOLDER.sub(lambda match: values[match.group()], line)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE_BYTES + 1)
    except OSError as error:
        raise _fault(path, f"could not be read ({error.strerror})", "Check its permissions.") from error
    if len(data) > MAX_TEMPLATE_BYTES:
        raise _fault(path, f"is larger than {MAX_TEMPLATE_BYTES // 1024} KiB", "Give a text file of prompts.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _fault(path, f"is not UTF-8 (byte {error.start + 1})", "Save it as UTF-8.") from None


def _fault(path: Path, what: str, hint: str) -> VocableError:
    return VocableError("template.invalid", f"The template '{path}' {what}.", hint)
