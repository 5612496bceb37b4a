"""The list of what must hold names tests that exist: every name in its table is looked for in the tree."""

from __future__ import annotations

import ast
import fnmatch
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "test-list.md"

_CODE = re.compile(r"`([^`]+)`")
_NAME = re.compile(r"^(?:(?P<file>[\w/]*test_\w+)(?:\.py)?)?(?:::(?P<test>[\w*]+|\.\.\.))?(?:\[.*\])?$")


@cache
def list_tests(path: Path) -> tuple[str, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return tuple(node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_"))


def find_files(name: str) -> list[Path]:
    """The files that a name of the table means: a path from the root on, or only its end."""
    if name.startswith("tests/"):
        return [path for path in [ROOT / f"{name}.py"] if path.is_file()]
    return [path for path in (ROOT / "tests").rglob("test_*.py") if f"/{path.with_suffix('')}".endswith(f"/{name}")]


def missing_in(row: str) -> list[str]:
    """What a row names as a test and is none. `::test_x` means the file that was named last in the row."""
    missing, files = [], list[Path]()
    for code in _CODE.findall(row):
        match = _NAME.match(code)
        if not match or not (match["file"] or match["test"]):
            continue
        files = find_files(match["file"]) if match["file"] else files
        pattern = match["test"]
        names = [name for path in files for name in list_tests(path)]
        if not files or (pattern not in (None, "...") and not fnmatch.filter(names, pattern)):
            missing.append(code)
    return missing


def rows() -> dict[str, str]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    return {line.split("|")[1].strip(): line for line in lines}


def test_every_test_that_the_list_names_exists() -> None:
    assert {item: missing for item, row in rows().items() if (missing := missing_in(row))} == {}


def test_every_item_has_a_row() -> None:
    named = {int(number) for item in rows() for number in re.findall(r"\d+", item)}
    assert set(range(1, 61)) - named == set()


def test_a_name_that_stands_for_no_test_is_noticed() -> None:
    row = (
        "| 1 | `test_list::test_every_item_has_a_row`, `::test_none`, `tests/test_list.py::test_neither`, `test_gone` |"
    )
    assert missing_in(row) == ["::test_none", "tests/test_list.py::test_neither", "test_gone"]
