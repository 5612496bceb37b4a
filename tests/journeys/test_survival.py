"""A run that lost its worker or its service ends with the very bits of a run that was left alone."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from tests.journeys.conftest import Place, open_place

SETTINGS = (
    "start.init_text=girl",
    "train.steps=60",
    "train.batch_size=2",
    "save.checkpoint_every=10",
    "save.every=30",
    "save.images_every=0",
)


def vectors(path: str) -> bytes:
    """The raw tensor bytes of an embedding file, without its metadata."""
    data = Path(path).read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with open_place(tmp_path_factory.mktemp("calm")) as place:
        run = place.train("calm", *SETTINGS)
        view = place.wait_for(run["id"], lambda view: view.state in ("finished", "failed"))
        assert view.state == "finished"
        return vectors(view.embedding)


def test_a_killed_worker_comes_back_and_the_run_ends_with_the_same_bits(place: Place, undisturbed: bytes) -> None:
    run = place.train("shot", *SETTINGS)
    place.wait_for(run["id"], lambda view: view.step >= 20)
    os.kill(place.json("daemon", "status")["worker_pid"], signal.SIGKILL)
    view = place.wait_for(run["id"], lambda view: view.state in ("finished", "failed"))
    assert (view.state, view.restarts) == ("finished", 1)
    assert vectors(view.embedding) == undisturbed


def test_a_killed_service_takes_its_worker_along_and_the_next_one_finishes_the_run(
    place: Place, undisturbed: bytes
) -> None:
    run = place.train("orphan", *SETTINGS)
    place.wait_for(run["id"], lambda view: view.step >= 20)
    status = place.json("daemon", "status")
    worker = os.pidfd_open(status["worker_pid"])
    os.kill(status["pid"], signal.SIGKILL)
    assert select.select([worker], [], [], 5)[0], "the worker outlived its service"
    os.close(worker)
    place.vocable("daemon", "start")
    view = place.wait_for(run["id"], lambda view: view.state in ("finished", "failed"))
    assert view.state == "finished"
    assert vectors(view.embedding) == undisturbed


def test_pause_and_resume_end_with_the_same_bits(place: Place, undisturbed: bytes) -> None:
    run = place.train("rest", *SETTINGS)
    place.wait_for(run["id"], lambda view: view.step >= 15)
    place.vocable("pause", run["id"])
    place.wait_for(run["id"], lambda view: view.state == "paused")
    place.vocable("resume", run["id"])
    view = place.wait_for(run["id"], lambda view: view.state in ("finished", "failed"))
    assert view.state == "finished"
    assert vectors(view.embedding) == undisturbed
