"""The demo from end to end against the real service."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from engine.models.starter import sample
from tests.tui.cli.conftest import Vocable
from tui.cli import demo
from tui.cli.findings import close_gap


def test_a_demo_that_learned_too_little_says_so_and_replaces_nothing(
    own_vocable: Vocable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held_out = tmp_path / "held out"
    held_out.mkdir()
    for name in ("0000.png", "0000.txt"):
        shutil.copy(sample.HELD_OUT_DIR / name, held_out)
    monkeypatch.setattr(sample, "HELD_OUT_DIR", held_out)
    monkeypatch.setattr(demo, "STEPS", 2)
    monkeypatch.setattr(sample, "PROMPTS", sample.PROMPTS[:2])
    mine = Path(own_vocable("new", "zara", "--init", "boy")[0].strip())
    before = mine.read_bytes()
    out, err = own_vocable("demo", "--json", code=1)
    assert len(out.splitlines()) == 1
    found = json.loads(out)
    assert set(found["losses"]) == {"init", "trained", "oracle"}
    assert found["gap_closed"] == pytest.approx(close_gap(**found["losses"]))
    assert set(found["identified"]) == {"init", "trained"}
    assert found["train_seconds"] > 0
    assert "% is due." in err
    with Image.open(found["sheet"]) as sheet:
        assert sheet.width > sheet.height

    assert Path(found["embedding"]) == mine.with_name("zara-2.safetensors")
    assert Path(found["embedding"]).is_file()
    assert mine.read_bytes() == before
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
