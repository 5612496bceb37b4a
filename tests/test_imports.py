"""Heavy libraries stay where they belong; each program is imported in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "accelerate")


def modules_after(statement: str) -> set[str]:
    """Top-level names in sys.modules of a fresh process that ran `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import tui.__main__, tui.app",
        "import daemon.__main__, daemon.server, daemon.queue, daemon.library",
        "import daemon.client",
        "import daemon.worker.preparer",
        "import engine.preflight, engine.embedding.read, engine.models.catalog, engine.prompt.parse",
    ],
)
def test_faces_and_supervisor_never_import_torch(statement: str) -> None:
    assert modules_after(statement).isdisjoint(HEAVY)


def test_the_terminal_program_starts_without_numpy_and_pillow() -> None:
    assert modules_after("import tui.__main__, tui.app").isdisjoint({"numpy", "PIL", "textual_plot", "textual_image"})


def test_the_supervisor_starts_without_numpy_and_pillow() -> None:
    loaded = modules_after("import daemon.__main__, daemon.server, daemon.queue, daemon.library")
    assert loaded.isdisjoint({"numpy", "PIL", "textual", "typer"})


def test_the_engine_imports_neither_screen_nor_server() -> None:
    loaded = modules_after("import engine.training.loop, engine.sampling.generate, engine.embedding.create")
    assert loaded.isdisjoint({"textual", "starlette", "uvicorn", "tui", "daemon"})
