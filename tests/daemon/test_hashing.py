from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from daemon import hashing as hashing_module
from daemon.hashing import Hashing
from engine.models import hashes
from engine.models.catalog import ModelEntry, find_model, list_models, read_entry


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two models, too large to be hashed while somebody waits."""
    monkeypatch.setattr(hashes, "SMALL_BYTES", 1000)
    monkeypatch.setattr(hashes, "_KNOWN", {})
    starter = find_model("starter", []).path
    monkeypatch.setattr(hashes, "_KNOWN", {})
    for name in ("one", "two"):
        (tmp_path / "models" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "models" / name).symlink_to(starter)
    return [tmp_path / "models" / name for name in ("one", "two")]


async def test_models_are_hashed_in_the_background_and_then_listed_with_their_hashes(
    copies: list[Path], tmp_path: Path
) -> None:
    hashed = asyncio.Event()
    calls: list[None] = []

    def note() -> None:
        calls.append(None)
        if len(calls) == 2:
            hashed.set()

    hashing = Hashing(tmp_path / "cache", note)
    hashing.take([*copies, tmp_path / "absent", *copies])
    await asyncio.wait_for(hashed.wait(), 30)
    weights = copies[0] / "unet/diffusion_pytorch_model.safetensors"
    entries = list_models([tmp_path / "models"], cache=tmp_path / "cache", wait=False)
    wanted = hashlib.sha256(weights.read_bytes()).hexdigest()[:10]
    assert [entry.hash for entry in entries if entry.name != "starter"] == [wanted, wanted]
    await hashing.stop()


async def test_hashing_that_is_stopped_begins_no_other_file(copies: list[Path], tmp_path: Path) -> None:
    hashing = Hashing(tmp_path / "cache", lambda: None)
    hashing.take(copies)
    await hashing.stop()
    entries = list_models([tmp_path / "models"], cache=tmp_path / "cache", wait=False)
    assert entries[-1].hash == ""


async def test_a_model_whose_reader_fails_holds_up_no_other(
    copies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_at_first(path: Path, **options: object) -> ModelEntry:
        if path == copies[0]:
            raise RuntimeError("unforeseen")
        return read_entry(path)

    monkeypatch.setattr(hashing_module, "read_entry", fail_at_first)
    hashed = asyncio.Event()
    hashing = Hashing(tmp_path / "cache", hashed.set)
    hashing.take(copies)
    await asyncio.wait_for(hashed.wait(), 30)
    assert "unforeseen" in caplog.text
    await hashing.stop()


async def test_hashing_that_was_stopped_begins_nothing_new(copies: list[Path], tmp_path: Path) -> None:
    hashing = Hashing(tmp_path / "cache", lambda: None)
    await hashing.stop()
    hashing.take(copies)
    assert asyncio.all_tasks() == {asyncio.current_task()}
