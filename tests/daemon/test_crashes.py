"""Workers that are lost again and again, or cannot be killed: what becomes of the run, the queue and the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from daemon import keeper
from daemon.keeper import backoff_s
from daemon.paths import Workspace
from daemon.protocol.jobs import GenerateRequest
from daemon.protocol.service import QueueView, WorkerView
from daemon.worker.footprint import leave_footprint
from daemon.worker.pulse import Deadlines
from daemon.worker.supervise import Limits, Worker
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Running, StandIn, serving
from tests.daemon.worker.conftest import STANDIN


def pictures(workspace: Workspace) -> GenerateRequest:
    return GenerateRequest(prompts=["a word"], model="tiny", output=str(workspace.root / "out.png"))


async def until_queue(running: Running, condition: Callable[[QueueView], bool]) -> QueueView:
    return await until_state(running, "queue", QueueView, condition)


async def until_state(running, topic, kind, condition):  # type: ignore[no-untyped-def]
    """The queue's or the worker's view as soon as it meets `condition`."""
    async with asyncio.timeout(PATIENCE_S):
        state = await running.client.state()
        if condition(getattr(state, topic)):
            return getattr(state, topic)
        async for line in running.client.events(f"{state.boot_id}:{state.seq}"):
            if line.topic == topic and condition(view := kind.model_validate(line.data)):
                return view
    raise AssertionError("the stream ended")


async def lose(running: Running, run: str, number: int, **death: object) -> None:
    """Have the worker with this number get the run, and lose it."""
    worker = await running.crew.worker(number)
    await worker.told("train", run=run)
    worker.die(**death)  # type: ignore[arg-type]


async def break_down(running: Running) -> str:
    """Lose five workers at five steps of a run, which is returned."""
    run = (await running.train("first")).id
    for number in range(1, 6):
        await lose(running, run, number, kind="native", step=number)
    await until_queue(running, lambda view: view.state == "paused")
    return run


def test_pauses_grow_to_a_minute() -> None:
    assert [backoff_s(crashes) for crashes in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


async def test_five_lost_workers_pause_the_queue_and_no_run_is_given_up(running: Running) -> None:
    run = await break_down(running)
    second = await running.train("second")
    view = await running.client.queue()
    assert (view.state, view.order) == ("paused", [run, second.id])
    assert "lost 5 times within 10 minutes" in view.reason
    assert "vocable queue resume" in (await running.client.state()).problem
    first = await running.client.run(run)
    assert (first.state, first.warnings[-1].code) == ("queued", "queue.paused")
    assert len(running.crew.workers) == 5


async def test_a_paused_queue_goes_on_when_somebody_resumes_it(running: Running) -> None:
    run = await break_down(running)
    assert (await running.client.resume_queue()).state == "running"
    await (await running.crew.worker(6)).told("train", run=run)
    assert (await running.client.state()).problem == ""


async def test_resuming_a_run_resumes_a_paused_queue_too(running: Running) -> None:
    run = await break_down(running)
    await running.client.command(run, "pause")
    await running.client.command(run, "resume")
    await (await running.crew.worker(6)).told("train", run=run)


async def test_resuming_a_queue_that_runs_changes_nothing(running: Running) -> None:
    assert await running.client.resume_queue() == await running.client.queue() == QueueView()


async def test_pictures_are_refused_while_the_queue_is_paused_and_those_that_waited_fail(running: Running) -> None:
    job = await running.client.generate(pictures(running.workspace))
    for number in range(1, 6):
        worker = await running.crew.worker(number)
        await worker.told("generate", job=job.id)
        worker.die(phase="import")
        if number == 2:
            assert (await running.client.job(job.id)).state == "failed"
            job = await running.client.generate(pictures(running.workspace))
        elif number == 4:
            job = await running.client.generate(pictures(running.workspace))
    view = await running.client.job(job.id)
    assert view.error is not None
    assert (view.state, view.error.code) == ("failed", "worker.crash_loop")
    with pytest.raises(VocableError, match="The queue is paused") as caught:
        await running.client.generate(pictures(running.workspace))
    assert caught.value.code == "queue.paused"


@pytest.mark.parametrize("step", [57, None])
async def test_a_run_that_ends_two_workers_at_one_step_is_not_tried_again_and_the_next_begins(
    running: Running, step: int | None
) -> None:
    run, second = await running.train("poison"), await running.train("second")
    await lose(running, run.id, 1, kind="native", step=step)
    await lose(running, run.id, 2, kind="hung", step=step)
    view = await running.until_state(run.id, "failed")
    assert view.error is not None
    assert (view.error.code, view.restarts) == ("worker.poison", 2)
    await (await running.crew.worker(3)).told("train", run=second.id)


@pytest.mark.parametrize(
    "deaths",
    [
        [{"kind": "native", "step": 57}, {"kind": "native", "step": 58}],
        [{"kind": "killed", "step": 57}, {"kind": "killed", "step": 57}],
        [{"kind": "native", "step": 57, "phase": "job"}, {"kind": "native", "step": 57}],
    ],
    ids=["at-other-steps", "from-outside", "during-a-job"],
)
async def test_a_run_is_not_blamed_for_workers_lost_otherwise(running: Running, deaths: list[dict]) -> None:
    run = (await running.train("innocent")).id
    for number, death in enumerate(deaths, 1):
        await lose(running, run, number, **death)
    await (await running.crew.worker(3)).told("train", run=run)


async def test_a_poisoned_run_that_is_resumed_gets_two_more_tries(running: Running) -> None:
    run = (await running.train("poison")).id
    for number in (1, 2, 3, 4):
        await lose(running, run, number, kind="memory", step=9)
        if number == 2:
            await running.until_state(run, "failed")
            await running.client.command(run, "resume")
    view = await running.until_state(run, "failed")
    assert view.restarts == 4


async def test_pictures_outlive_the_crashes_of_a_run(running: Running) -> None:
    run = (await running.train("poison")).id
    first = await running.crew.worker(1)
    await first.told("train", run=run)
    job = await running.client.generate(pictures(running.workspace))
    await first.told("generate", job=job.id)
    first.die(kind="native", step=3)
    second = await running.crew.worker(2)
    await second.told("generate", job=job.id)
    second.die(kind="native", step=3)
    third = await running.crew.worker(3)
    await third.told("generate", job=job.id)
    third.say(type="result", job=job.id, result={"pictures": []})
    assert (await running.client.job(job.id)).state == "done"


async def test_a_pause_that_was_asked_for_is_kept_when_the_worker_is_lost(running: Running) -> None:
    run = (await running.train("tired")).id
    worker = await running.crew.worker(1)
    worker.obeys = False
    await worker.told("train", run=run)
    await running.client.command(run, "pause")
    worker.die(kind="hung", step=4)
    assert (await running.until_state(run, "paused")).asked == ""
    assert len(running.crew.workers) == 1


async def test_a_stop_that_was_asked_for_goes_to_the_next_worker_when_one_is_lost(running: Running) -> None:
    run = (await running.train("over")).id
    worker = await running.crew.worker(1)
    await worker.told("train", run=run)
    await running.client.command(run, "stop")
    worker.die(kind="hung", step=4)
    heir = await running.crew.worker(2)
    await heir.told("stop", run=run)
    assert [message["do"] for message in heir.sent] == ["words", "train", "stop"]


async def begin_and_wedge(running: Running) -> tuple[str, StandIn]:
    run = (await running.train("held")).id
    worker = await running.crew.worker(1)
    await worker.told("train", run=run)
    worker.wedge()
    await until_queue(running, lambda view: view.state == "blocked")
    return run, worker


async def test_no_second_worker_is_started_while_one_cannot_be_killed(running: Running) -> None:
    run, worker = await begin_and_wedge(running)
    state = await running.client.state()
    assert (state.worker.state, state.worker.pid) == ("gpu_wedged", worker.pid)
    assert "cannot be killed" in state.problem
    await running.train("second")
    with pytest.raises(VocableError, match="cannot be killed"):
        await running.client.generate(pictures(running.workspace))
    assert (await running.client.command(run, "pause")).state == "paused"
    assert len(running.crew.workers) == 1


async def test_the_queue_goes_on_when_a_worker_that_could_not_be_killed_is_gone(running: Running) -> None:
    run, worker = await begin_and_wedge(running)
    worker.die(kind="hung")
    await (await running.crew.worker(2)).told("train", run=run)
    state = await running.client.state()
    assert (state.queue.state, state.problem) == ("running", "")
    assert (await running.client.run(run)).restarts == 1


async def test_the_service_ends_although_its_worker_cannot_be_killed(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        _, worker = await begin_and_wedge(running)
        worker.obeys = False


@contextlib.contextmanager
def left_behind(workspace: Workspace) -> Iterator[subprocess.Popen[bytes]]:
    """A process that counts as the worker of an earlier service; gone at the end, whatever became of it."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    leave_footprint(workspace.state / "worker.json", process.pid)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_worker_of_an_earlier_service_is_gone_before_the_next_one_starts(workspace: Workspace) -> None:
    with left_behind(workspace) as process:
        async with serving(workspace) as running:
            await running.train()
            await running.crew.worker(1)
            assert process.poll() == -signal.SIGKILL
        assert not (workspace.state / "worker.json").exists()


async def test_a_process_that_only_has_the_number_of_an_earlier_worker_is_left_alone(workspace: Workspace) -> None:
    with left_behind(workspace) as process:
        path = workspace.state / "worker.json"
        path.write_text(path.read_text().replace('"started": ', '"started": 1'))
        async with serving(workspace) as running:
            await running.train()
            await running.crew.worker(1)
        assert process.poll() is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x", "started": 1, "boot_id": ""}'])
async def test_a_damaged_note_of_an_earlier_worker_keeps_no_worker_from_starting(
    workspace: Workspace, content: str
) -> None:
    (workspace.state / "worker.json").write_text(content)
    async with serving(workspace) as running:
        await running.train()
        await running.crew.worker(1)


async def test_an_earlier_worker_that_cannot_be_killed_blocks_the_queue_until_it_is_gone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with left_behind(workspace) as process:
        monkeypatch.setattr(keeper, "KILL_TIMEOUT_S", 0.1)
        monkeypatch.setattr("daemon.worker.footprint.os.killpg", lambda pid, number: None)
        async with serving(workspace) as running:
            await until_state(running, "worker", WorkerView, lambda view: view.state == "gpu_wedged")
            await running.train()
            assert (await running.client.queue()).state == "blocked"
            assert not running.crew.workers
            process.kill()
            await running.crew.worker(1)
            assert (await until_queue(running, lambda view: view.state == "running")).reason == ""


async def test_a_run_whose_worker_hangs_goes_on_with_the_next_and_the_service_answers_meanwhile(
    workspace: Workspace,
) -> None:
    limits = Limits(Deadlines(step_s=1), dump_s=0.2, term_s=0.2)
    make = partial(Worker, log=workspace.worker_log, limits=limits, command=STANDIN)
    async with serving(
        workspace, make_worker=lambda on_message, on_exit: make(on_message=on_message, on_exit=on_exit)
    ) as running:
        run = (await running.train()).id
        watching = asyncio.create_task(running.until_state(run, "stopped"))
        answers = 0
        while not watching.done():
            await asyncio.wait_for(running.client.state(), PATIENCE_S / 10)
            answers += 1
        view = await watching
    assert (view.restarts, view.step) == (1, 57)
    (warning,) = view.warnings
    assert "made no progress for" in warning.title
    stacks = await asyncio.to_thread(Path(warning.hint.rpartition(" ")[2].rstrip(".")).read_text)
    assert "in train" in stacks
    assert answers > 10


def test_a_footprint_names_one_process_for_all_time(tmp_path: Path) -> None:
    leave_footprint(tmp_path / "worker.json", os.getpid())
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    text = (tmp_path / "worker.json").read_text()
    assert str(os.getpid()) in text
    assert boot_id in text
