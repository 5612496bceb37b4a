"""What a picture's own text says of how it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.recreate import recreate
from engine.models import hashes

TEXT = (
    "a hat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64, "
    "Model hash: 0123456789, Model: starter, RNG: CPU"
)


def test_no_large_model_is_hashed_while_somebody_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hashes, "SMALL_BYTES", 0)
    monkeypatch.setattr(hashes, "_KNOWN", {})
    monkeypatch.setattr(hashes, "_hash_file", lambda path: pytest.fail(f"{path} was read"))
    reply = recreate(TEXT, tmp_path / "1.png", [], [])
    assert (reply.request.model, reply.notes) == ("starter", [])


def test_a_model_of_another_hash_is_told(tmp_path: Path) -> None:
    (note,) = recreate(TEXT, tmp_path / "1.png", [], []).notes
    assert note.startswith("The model 'starter' has the hash ")
    assert note.endswith(" here, not 0123456789.")
