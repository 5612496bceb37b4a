"""The demo from end to end against the real service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from engine.models.starter import sample
from tests.tui.cli.conftest import Vocable
from tui.cli import demo
from tui.cli.findings import close_gap


def test_a_demo_that_learned_too_little_says_so_and_a_second_one_loses_nothing(
    own_vocable: Vocable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "STEPS", 2)
    monkeypatch.setattr(sample, "PROMPTS", sample.PROMPTS[:2])
    out, err = own_vocable("demo", "--keep", "--json", code=1)
    assert len(out.splitlines()) == 1
    first = json.loads(out)
    assert set(first["losses"]) == {"init", "trained", "oracle"}
    assert first["gap_closed"] == pytest.approx(close_gap(**first["losses"]))
    assert set(first["identified"]) == {"init", "trained"}
    assert first["train_seconds"] > 0
    with Image.open(first["sheet"]) as sheet:
        assert sheet.width > sheet.height
    assert "% is due." in err

    second = own_vocable.json("demo", code=1)
    assert Path(first["embedding"]).name == "zara.safetensors"
    assert Path(second["embedding"]).name == "zara-2.safetensors"
    assert Path(first["embedding"]).is_file()
    assert Path(first["sheet"]).is_file()
    assert own_vocable.json("daemon", "status")["running"] is True


@pytest.mark.slow
def test_the_demo_succeeds_without_a_terminal_and_stops_what_it_started(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tui", "--workspace", str(tmp_path / "demo"), "demo", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["gap_closed"] >= 0.8
    assert measured["identified"]["trained"] >= 0.8 > measured["identified"]["init"]
    assert Path(measured["embedding"]).is_file()
    status = subprocess.run([*line[:5], "daemon", "status"], capture_output=True, text=True)
    assert status.returncode == 1
