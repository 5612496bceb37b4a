"""Jobs that prepare pictures: in order, beside runs, cancelled in time, taken again when their process is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from daemon import preparation
from daemon.events import Hub
from daemon.jobs import Jobs, new_job
from daemon.keeper import Message
from daemon.paths import Workspace
from daemon.protocol.jobs import JobView
from daemon.protocol.preprocess import PreprocessJob, PreprocessResult
from daemon.settings import Settings
from daemon.worker.exits import WorkerExit
from daemon.worker.footprint import NAME as FOOTPRINT
from daemon.worker.preparer import NICENESS, OOM_SCORE
from daemon.worker.supervise import Worker
from engine.errors import VocableError
from engine.models.starter.portraits import write_pictures
from tests.daemon.conftest import PATIENCE_S, Crew, Running, StandIn, serving
from tests.engine.preprocess.tiny_blip import SENTENCES, make_blip, picture

SMALL = {"width": 64, "height": 64}

MANY = 150
"""Pictures enough for something to happen while they are prepared."""


def asked(destination: str = "ready", **options: Any) -> PreprocessJob:
    return PreprocessJob.model_validate({"source": "raw", "destination": destination, "options": SMALL | options})


@pytest.fixture
def raw(workspace: Workspace) -> Path:
    """Pictures to prepare, one of them none."""
    folder = workspace.datasets / "raw"
    write_pictures(folder, 3, seed=1)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


async def end_of(running: Running, job: JobView) -> JobView:
    async with asyncio.timeout(PATIENCE_S):
        while job.state in ("queued", "running"):
            job = await running.client.job(job.id, wait_s=5)
    return job


async def prepare(running: Running, request: PreprocessJob) -> PreprocessResult:
    job = await end_of(running, await running.client.preprocess(request))
    assert job.state == "done", job.error
    return PreprocessResult.model_validate(job.result)


# The real process


async def test_a_folder_is_prepared_and_what_went_wrong_is_named(running: Running, raw: Path) -> None:
    result = await prepare(running, asked(captions={"existing": "copy"}))
    ready = running.workspace.datasets / "ready"
    assert (result.total, result.made, result.failed, result.files) == (4, 3, 1, 3)
    assert [picture.reason for picture in result.pictures if picture.state == "failed"] == [
        "The picture 'broken.png' is not a picture of a known format."
    ]
    assert result.record == str(ready / "preprocess.json")
    assert (ready / "00000-0-0000.txt").read_text().strip() == (raw / "0000.txt").read_text().strip()
    with Image.open(ready / "00000-0-0000.png") as made:
        assert made.size == (64, 64)


async def test_a_second_run_over_unchanged_sources_does_nothing(running: Running, raw: Path) -> None:
    await prepare(running, asked())
    before = {path: path.stat().st_mtime_ns for path in (running.workspace.datasets / "ready").iterdir()}
    result = await prepare(running, asked())
    assert (result.made, result.unchanged) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in before} == before


async def test_a_dry_run_tells_of_every_picture_and_writes_nothing(running: Running, raw: Path) -> None:
    result = await prepare(running, asked(flip=True).model_copy(update={"dry_run": True}))
    assert (len(result.pictures), result.files, result.dry_run) == (4, 6, True)
    assert not (running.workspace.datasets / "ready").exists()


async def test_the_starters_labels_can_stand_in_the_names_and_who_has_none_is_counted(
    running: Running, workspace: Workspace
) -> None:
    write_pictures(workspace.datasets / "raw", 1, seed=1)
    Image.effect_noise((64, 64), 90).convert("RGB").save(workspace.datasets / "raw" / "noise.png")
    result = await prepare(running, asked(captions={"make": "starter", "save_to": "name"}))
    labelled, bare = sorted(path.stem for path in (workspace.datasets / "ready").glob("*.png"))
    assert (result.files, result.uncaptioned) == (2, 1)
    assert labelled.startswith("00000-0-")
    assert labelled.endswith(" background")
    assert bare.startswith("00001-0")


async def test_blip_captions_from_the_folder_that_the_settings_name(workspace: Workspace, raw: Path) -> None:
    make_blip(workspace.root / "captioner")
    picture("blue").save(raw / "blue.png")
    settings = Settings.model_validate({"preprocess": {"blip": "captioner", "processes": 1}})
    captions = {"make": "blip", "existing": "prepend", "blip": {"min_tokens": 0}}
    async with serving(workspace, settings=settings) as running:
        result = await prepare(running, asked(captions=captions))
    ready = workspace.datasets / "ready"
    existing = (raw / "0000.txt").read_text().strip()
    assert result.device == "cpu" or torch.cuda.is_available()
    assert (ready / "00003-0-blue.txt").read_text().strip() == SENTENCES["blue"]
    assert (ready / "00000-0-0000.txt").read_text().startswith(f"{existing} a ")


async def test_a_run_trains_on_meanwhile(running: Running, raw: Path) -> None:
    run = await running.train()
    await (await running.crew.worker()).told("train", run=run.id)
    assert (await prepare(running, asked())).made == 3
    assert (await running.client.run(run.id)).state == "running"


async def test_a_lost_process_is_replaced_and_the_job_goes_on(running: Running, raw: Path) -> None:
    write_pictures(raw, MANY, seed=2)
    job = await running.client.preprocess(asked())
    await until_begun(running, job)
    os.killpg(process_of(running.workspace), signal.SIGKILL)
    job = await end_of(running, job)
    assert job.state == "done"
    assert job.result is not None
    assert job.result["unchanged"] > 0
    assert job.result["made"] + job.result["unchanged"] == MANY


async def test_a_cancelled_job_ends_soon_and_the_next_one_goes_on_from_there(running: Running, raw: Path) -> None:
    write_pictures(raw, MANY, seed=2)
    job = await running.client.preprocess(asked())
    await until_begun(running, job)
    await running.client.cancel_job(job.id)
    job = await end_of(running, job)
    assert job.state == "cancelled"
    assert job.done < job.total
    assert (await prepare(running, asked())).unchanged > 0


async def test_its_process_yields_to_everything_else(running: Running, raw: Path) -> None:
    write_pictures(raw, MANY, seed=2)
    job = await running.client.preprocess(asked())
    await until_begun(running, job)
    process = process_of(running.workspace)
    members = [pid for pid in processes() if group_of(pid) == process]
    assert len(members) > 1
    for pid in members:
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
        assert oom_score(pid) == OOM_SCORE
    await running.client.cancel_job(job.id)
    await end_of(running, job)


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


async def until_begun(running: Running, job: JobView) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not job.done:
            job = await running.client.job(job.id, wait_s=0)
            await asyncio.sleep(0.01)
    assert job.detail.endswith(".png")


def process_of(workspace: Workspace) -> int:
    footprint = workspace.state / preparation.FOLDER / FOOTPRINT
    return int(json.loads(footprint.read_bytes())["pid"])


# A stand-in for the process


@pytest.fixture
def preparers() -> Crew:
    return Crew()


@pytest.fixture
async def staged(workspace: Workspace, raw: Path, preparers: Crew) -> AsyncIterator[Running]:
    async with serving(workspace, make_preparer=preparers.hire) as running:
        yield running


async def begin(running: Running, preparers: Crew, destination: str = "ready") -> tuple[JobView, StandIn]:
    job = await running.client.preprocess(asked(destination))
    process = await preparers.worker(len(preparers.workers) or 1)
    await process.told("preprocess", job=job.id)
    return job, process


async def test_jobs_come_one_after_the_other_each_with_its_process(staged: Running, preparers: Crew) -> None:
    first, process = await begin(staged, preparers)
    second = await staged.client.preprocess(asked("other"))
    process.say(type="result", job=first.id, result={"made": 1})
    assert (await end_of(staged, first)).result == {"made": 1}
    await (await preparers.worker(2)).told("preprocess", job=second.id)
    assert process.pid is None


async def test_progress_tells_the_file_at_hand(staged: Running, preparers: Crew) -> None:
    job, process = await begin(staged, preparers)
    process.say(type="job", job=job.id, done=1, total=3, detail="0000.png")
    view = await staged.client.job(job.id, wait_s=0)
    assert (view.state, view.done, view.total, view.detail) == ("running", 1, 3, "0000.png")


async def test_a_process_that_does_not_heed_a_cancel_is_killed(
    staged: Running, preparers: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "CANCEL_S", 0.01)
    job, process = await begin(staged, preparers)
    await staged.client.cancel_job(job.id)
    assert (await end_of(staged, job)).state == "cancelled"
    assert process.pid is None


async def test_a_job_that_waits_is_cancelled_at_once(staged: Running, preparers: Crew) -> None:
    first, process = await begin(staged, preparers)
    second = await staged.client.preprocess(asked("other"))
    assert (await staged.client.cancel_job(second.id)).state == "cancelled"
    process.say(type="result", job=first.id, result={})
    assert (await end_of(staged, first)).state == "done"
    assert len(preparers.workers) == 1


async def test_a_job_that_loses_two_processes_fails_with_the_reason(staged: Running, preparers: Crew) -> None:
    job, process = await begin(staged, preparers)
    process.die("memory")
    second = await preparers.worker(2)
    await second.told("preprocess", job=job.id)
    second.die("memory")
    view = await end_of(staged, job)
    assert view.state == "failed"
    assert view.error is not None
    assert (view.error.code, view.error.title) == ("worker.lost", "The worker was lost (memory).")
    assert "state/preprocess/worker.log" in view.error.hint


async def test_a_fault_of_the_services_own_costs_one_job(
    staged: Running, preparers: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StandIn, "send", lambda process, message: 1 / 0)
        view = await end_of(staged, await staged.client.preprocess(asked()))
    assert view.error is not None
    assert (view.state, view.error.code) == ("failed", "internal")
    job = await staged.client.preprocess(asked())
    await (await preparers.worker(2)).told("preprocess", job=job.id)


async def test_a_fault_that_the_process_tells_ends_the_job(staged: Running, preparers: Crew) -> None:
    job, process = await begin(staged, preparers)
    process.say(type="failed", job=job.id, error={"code": "disk.full", "title": "No room.", "hint": ""})
    view = await end_of(staged, job)
    assert view.error is not None
    assert (view.state, view.error.code) == ("failed", "disk.full")


async def test_a_process_that_cannot_be_killed_fails_its_job_and_keeps_others_waiting(
    staged: Running, preparers: Crew
) -> None:
    job, process = await begin(staged, preparers)
    process.obeys = False
    process.wedge()
    assert (await end_of(staged, job)).state == "failed"
    second = await staged.client.preprocess(asked("other"))
    assert (await staged.client.job(second.id, wait_s=0)).state == "queued"
    process.die()
    await (await preparers.worker(2)).told("preprocess", job=second.id)


async def test_captions_leave_the_device_to_a_run_that_trains(staged: Running, preparers: Crew) -> None:
    job, process = await begin(staged, preparers)
    assert (await process.told("preprocess"))["device"] == "auto"
    process.say(type="result", job=job.id, result={})
    await end_of(staged, job)
    run = await staged.train()
    await (await staged.crew.worker()).told("train", run=run.id)
    second = await staged.client.preprocess(asked("other"))
    assert (await (await preparers.worker(2)).told("preprocess", job=second.id))["device"] == "cpu"


async def test_a_queue_that_waits_for_a_driver_prepares_pictures_all_the_same(staged: Running, preparers: Crew) -> None:
    await staged.train()
    worker = await staged.crew.worker()
    worker.wedge()
    job, process = await begin(staged, preparers)
    process.say(type="result", job=job.id, result={})
    assert (await end_of(staged, job)).state == "done"
    worker.die()


async def test_the_same_key_gives_the_same_job(staged: Running, preparers: Crew) -> None:
    first = await staged.client.preprocess(asked(), key="once")
    assert (await staged.client.preprocess(asked(), key="once")).id == first.id
    assert (await staged.client.preprocess(asked())).id != first.id
    with pytest.raises(VocableError) as caught:
        await staged.client.preprocess(asked("other"), key="once")
    assert caught.value.code == "request.key_reused"


async def test_what_is_not_there_is_told_before_anything_is_queued(staged: Running, preparers: Crew) -> None:
    with pytest.raises(VocableError, match="There is no BLIP model") as caught:
        await staged.client.preprocess(asked(captions={"make": "blip"}))
    assert caught.value.code == "caption.missing"
    assert preparers.workers == []


async def test_the_end_of_the_service_ends_its_jobs(workspace: Workspace, raw: Path, preparers: Crew) -> None:
    async with serving(workspace, make_preparer=preparers.hire) as running:
        _, process = await begin(running, preparers)
    assert process.pid is None


async def test_at_the_end_of_the_service_its_process_is_gone_and_no_job_is_taken(tmp_path: Path) -> None:
    hanging = [sys.executable, "-c", "import time; time.sleep(99)"]
    made: list[Worker] = []

    def make(on_message: Callable[[Message], None], on_exit: Callable[[WorkerExit], None]) -> Worker:
        made.append(Worker(log=tmp_path / "worker.log", on_message=on_message, on_exit=on_exit, command=hanging))
        return made[0]

    sent = asyncio.Event()

    def note_sent() -> str:
        sent.set()
        return "cpu"

    work = preparation.Preparation(Jobs(Hub("boot")), make, settings=dict, device=note_sent, folder=tmp_path)
    job, late = (new_job("preprocess", {}, apart=True) for _ in range(2))
    work.start()
    work.add(job)
    await asyncio.wait_for(sent.wait(), PATIENCE_S)
    await work.stop()
    assert (made[0].pid, asyncio.all_tasks()) == (None, {asyncio.current_task()})
    with pytest.raises(VocableError) as caught:
        work.add(late)
    assert caught.value.code == "service.stopping"
