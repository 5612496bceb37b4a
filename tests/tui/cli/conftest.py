"""One real service with the starter model for all tests that only ask it things; runs in them are a few steps long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from engine.models.starter.sample import TRAIN_DIR
from tui.cli.app import run_command_line

PICTURES = str(TRAIN_DIR)
QUICK = ("--init", "girl", "--set", "train.batch_size=1", "--set", "save.images_every=0", "--set", "save.every=0")


@dataclass(frozen=True)
class Vocable:
    """The command line on one workspace, called in this process."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run a command that must end with `code`; return what it wrote to stdout and to stderr."""
        self.capsys.readouterr()
        ended = run_command_line(["--workspace", str(self.root), *arguments])
        written = self.capsys.readouterr()
        assert ended == code, f"{arguments} ended with {ended}: {written.err}"
        assert "Traceback" not in written.err
        return written.out, written.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code)[0])

    def start(self, *arguments: str) -> Program:
        """Start a command as a program of its own, with its output in pipes."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tui", "--workspace", str(self.root), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        return Program(process)


@dataclass(frozen=True)
class Program:
    """A command that runs beside the test."""

    process: subprocess.Popen[str]

    def wait_for(self, text: str) -> str:
        """Read the program's talk up to a line with `text`."""
        read = []
        for line in self._talk:
            read.append(line)
            if text in line:
                return "".join(read)
        raise AssertionError(f"'{text}' was never said:\n{''.join(read)}")

    def end(self) -> tuple[int, str, str]:
        """Exit code, data and the rest of the talk."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err

    @property
    def _talk(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr


@pytest.fixture(scope="session")
def shared_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("cli") / "workspace"
    yield root
    assert run_command_line(["--workspace", str(root), "daemon", "stop"]) == 0


@pytest.fixture
def vocable(shared_workspace: Path, capsys: pytest.CaptureFixture[str]) -> Vocable:
    """On a workspace that all tests share: names must differ from test to test."""
    return Vocable(shared_workspace, capsys)


@pytest.fixture
def own_vocable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Vocable]:
    """On a workspace of its own, for tests that stop or kill its service."""
    vocable = Vocable(tmp_path / "workspace", capsys)
    yield vocable
    vocable("daemon", "stop")
