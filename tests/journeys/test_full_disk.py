"""A workspace whose disk fills up under a run: the run waits, says so, and goes on when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.conftest import Place
from tests.mounts import MIB, fill, small_disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    with small_disk(tmp_path / "disk", 160 * MIB) as folder:
        place = Place(folder / "workspace")
        place.root.mkdir()
        yield place
        place.vocable("daemon", "stop")


@pytest.mark.slow
def test_a_run_waits_for_room_and_then_finishes_by_itself(small: Place) -> None:
    run = small.train("mia", "train.steps=60", "save.checkpoint_every=5", "save.images_every=0", "save.every=0")
    small.wait_for(run["id"], lambda view: view.step >= 5)
    filler = fill(small.root.parent, leave=0)
    waiting = small.wait_for(run["id"], lambda view: view.state not in ("queued", "running"))
    assert waiting.state == "paused"
    assert waiting.error is not None
    assert waiting.error.code == "disk.full"
    assert "'mia' waits" in small.json("daemon", "status")["problem"]
    filler.unlink()
    done = small.wait_for(run["id"], lambda view: view.state in ("finished", "failed", "stopped"))
    assert (done.state, done.step, done.error) == ("finished", 60, None)
    assert Path(done.embedding).exists()
