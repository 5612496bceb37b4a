from __future__ import annotations

from pathlib import Path

import pytest

from daemon.worker import log
from daemon.worker.log import LineLimiter, WorkerLog


def test_a_flood_of_lines_is_thinned_and_what_is_missing_is_counted() -> None:
    limiter = LineLimiter()
    assert len(limiter.admit(["x"] * 700, 0.0)) == 700
    assert len(limiter.admit(["x"] * 700, 0.0)) == 300
    assert limiter.admit(["x"] * 10, 0.0) == []
    assert limiter.admit(["y"], 1.0) == ["(410 lines were left out)", "y"]
    assert limiter.finish() == []


def test_lines_left_out_at_the_end_are_counted_too() -> None:
    limiter = LineLimiter()
    limiter.admit(["x"] * 1200, 0.0)
    assert limiter.finish() == ["(200 lines were left out)"]


def test_a_full_log_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_MAX_BYTES", 1000)
    worker_log = WorkerLog(tmp_path / "worker.log")
    for number in range(100):
        worker_log.write(7, f"line {number}")
    kept = (tmp_path / "worker.log.1").read_text() + (tmp_path / "worker.log").read_text()
    assert kept.endswith("line 99\n")
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 1100
