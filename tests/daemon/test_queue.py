"""Runs and jobs, from the command to the worker and back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from daemon.client import Client
from daemon.paths import Workspace
from daemon.protocol.jobs import CreateEmbedding, GenerateRequest
from daemon.protocol.states import RunCommand
from daemon.settings import ServiceSettings, Settings
from engine.errors import RecipeError, VocableError
from tests.daemon.conftest import PATIENCE_S, Running, StandIn, recipe, serving


async def begin(running: Running, name: str = "word") -> tuple[str, StandIn]:
    """A run that the worker has."""
    run = await running.train(name)
    worker = await running.crew.worker(1)
    await worker.told("train", run=run.id)
    return run.id, worker


async def finish(running: Running, worker: StandIn, run: str, outcome: str = "finished", step: int = 100) -> None:
    worker.tell(run, event="ended", outcome=outcome, step=step, embedding="/somewhere/word.safetensors")
    await running.until_state(run, outcome)


def pictures(workspace: Workspace) -> GenerateRequest:
    return GenerateRequest(prompts=["a word"], model="tiny", output=str(workspace.root / "out.png"))


async def test_a_run_goes_to_the_worker_and_its_progress_and_end_come_back(running: Running) -> None:
    run, worker = await begin(running)
    message = await worker.told("train")
    assert message["recipe"]["train"]["steps"] == 100
    assert message["destination"] == str(running.workspace.embeddings / "word.safetensors")
    assert message["folder"] in {str(path) for path in running.workspace.runs.glob("*/*")}
    worker.tell(run, event="phase", phase="training", done=0, total=0)
    worker.step(run, 1, 2, 4)
    view = await running.until(run, lambda view: view.step == 4)
    assert (view.state, view.phase, view.loss, view.seconds_left) == ("running", "training", 0.25, 9.6)
    await finish(running, worker, run)
    detail = await running.client.run(run)
    assert (detail.step, detail.phase, detail.embedding) == (100, "", "/somewhere/word.safetensors")
    assert [point.mean for point in (await running.client.losses(run)).points] == [1.0, 0.5, 0.25]


async def test_the_worker_gets_its_settings_and_the_words_first(running: Running) -> None:
    _, worker = await begin(running)
    assert worker.settings["models"] == [str(running.workspace.models)]
    assert [message["do"] for message in worker.sent] == ["words", "train"]


async def test_runs_are_trained_one_at_a_time_in_their_order(running: Running) -> None:
    first, worker = await begin(running, "first")
    second, third = await running.train("second"), await running.train("third")
    assert [view.id for view in await running.client.runs()] == [first, second.id, third.id]
    await finish(running, worker, first)
    await worker.told("train", run=second.id)
    assert (await running.client.run(third.id)).state == "queued"


async def test_pause_leaves_the_worker_to_the_next_run_and_resume_goes_to_the_head(running: Running) -> None:
    first, worker = await begin(running, "first")
    second, third = await running.train("second"), await running.train("third")
    await running.client.command(first, "pause")
    await running.until_state(first, "paused")
    await worker.told("train", run=second.id)
    assert (await running.client.command(first, "resume")).state == "queued"
    await finish(running, worker, second.id)
    await running.until_state(first, "running")
    assert (await running.client.run(third.id)).state == "queued"


async def test_a_run_that_is_resumed_before_the_worker_paused_goes_on(running: Running) -> None:
    run, worker = await begin(running)
    worker.obeys = False
    assert (await running.client.command(run, "pause")).asked == "pause"
    assert (await running.client.command(run, "resume")).asked == ""
    worker.sent.clear()
    worker.tell(run, event="ended", outcome="paused", step=9, embedding="")
    await worker.told("train", run=run)


async def test_stop_ends_a_run_with_its_embedding_and_resume_goes_on_from_there(running: Running) -> None:
    run, worker = await begin(running)
    await running.client.command(run, "stop")
    await worker.told("stop", run=run)
    await finish(running, worker, run, "stopped", step=30)
    assert (await running.client.run(run)).step == 30
    worker.sent.clear()
    await running.client.command(run, "resume")
    await worker.told("train", run=run)


async def test_a_paused_run_is_stopped_by_the_worker_which_alone_can_write_its_embedding(running: Running) -> None:
    run, worker = await begin(running)
    await running.client.command(run, "pause")
    await running.until_state(run, "paused")
    worker.sent.clear()
    await running.client.command(run, "stop")
    await worker.told("stop", run=run)
    assert [message["do"] for message in worker.sent] == ["train", "stop"]


@pytest.mark.parametrize(("command", "state"), [("pause", "paused"), ("stop", "stopped")])
async def test_a_run_that_never_began_needs_no_worker_to_leave(
    running: Running, command: RunCommand, state: str
) -> None:
    await begin(running, "first")
    second = await running.train("second")
    assert (await running.client.command(second.id, command)).state == state
    assert (await running.client.command(second.id, command)).state == state


async def test_a_command_that_the_state_does_not_allow_is_refused(running: Running) -> None:
    run, worker = await begin(running)
    await finish(running, worker, run)
    for command in ("pause", "resume", "stop"):
        with pytest.raises(VocableError, match=f"is finished; {command} is not possible") as caught:
            await running.client.command(run, command)  # type: ignore[arg-type]
        assert caught.value.code == "run.state"


async def test_an_error_of_the_worker_ends_the_run_and_the_next_one_begins(running: Running) -> None:
    run, worker = await begin(running)
    second = await running.train("second")
    error = {"code": "dataset.empty", "title": "No \x1b[31mpicture could be read.", "hint": "Add some."}
    worker.say(type="failed", run=run, error=error)
    view = await running.until_state(run, "failed")
    assert view.error is not None
    assert (view.error.code, view.error.title) == ("dataset.empty", "No \\x1b[31mpicture could be read.")
    await worker.told("train", run=second.id)


async def test_a_lost_worker_is_replaced_and_the_run_sent_again(running: Running) -> None:
    run, worker = await begin(running)
    worker.step(run, 5)
    worker.die()
    heir = await running.crew.worker(2)
    await heir.told("train", run=run)
    view = await running.until(run, lambda view: view.restarts == 1)
    assert (view.state, view.warnings[0].code) == ("running", "worker.lost")


async def test_losses_behind_the_resumed_step_are_replaced(running: Running) -> None:
    run, worker = await begin(running)
    worker.step(run, 1, 2, 3, 4)
    worker.tell(run, event="checkpoint", step=2, path="")
    worker.die()
    heir = await running.crew.worker(2)
    await heir.told("train", run=run)
    heir.tell(run, event="prepared", pictures=1, skipped=[], step=2, steps=100)
    heir.step(run, 3)
    await running.until(run, lambda view: view.step == 3)
    assert [point.step for point in (await running.client.losses(run)).points] == [1, 2, 3]


async def test_an_idle_worker_is_let_go_and_the_next_work_starts_another(workspace: Workspace) -> None:
    settings = Settings(service=ServiceSettings(idle_unload_s=1))
    async with serving(workspace, settings=settings) as running:
        run, worker = await begin(running)
        state = await running.client.state()
        await finish(running, worker, run)
        async for line in running.client.events(f"{state.boot_id}:{state.seq}"):
            if line.topic == "worker" and line.data["state"] == "absent":
                break
        assert worker.pid is None
        await running.train("second")
        await (await running.crew.worker(2)).told("train")


async def test_pictures_are_made_beside_a_run(running: Running) -> None:
    _, worker = await begin(running)
    job = await running.client.generate(pictures(running.workspace))
    await worker.told("generate", job=job.id)
    waiting = asyncio.create_task(running.client.job(job.id, wait_s=20))
    worker.say(type="job", job=job.id, done=3, total=20)
    worker.say(type="result", job=job.id, result={"pictures": ["/x.png"]})
    view = await waiting
    assert (view.state, view.done, view.total, view.result) == ("done", 3, 20, {"pictures": ["/x.png"]})


async def test_a_job_that_was_cancelled_before_its_turn_is_never_done(workspace: Workspace) -> None:
    async with serving(workspace, backoff=lambda crashes: 1000.0) as running:
        run, worker = await begin(running)
        worker.die()
        await running.until(run, lambda view: view.restarts == 1)
        job = await running.client.generate(pictures(workspace))
        assert (await running.client.cancel_job(job.id)).state == "cancelled"
        assert (await running.client.cancel_job(job.id)).state == "cancelled"


async def test_a_run_can_be_paused_while_no_worker_lives(workspace: Workspace) -> None:
    async with serving(workspace, backoff=lambda crashes: 1000.0) as running:
        run, worker = await begin(running)
        worker.die()
        await running.until(run, lambda view: view.restarts == 1)
        assert (await running.client.command(run, "pause")).state == "paused"


async def test_a_job_outlives_one_worker_but_not_two(running: Running) -> None:
    job = await running.client.generate(pictures(running.workspace))
    for number in (1, 2):
        worker = await running.crew.worker(number)
        await worker.told("generate", job=job.id)
        worker.die()
    view = await running.client.job(job.id)
    assert view.error is not None
    assert (view.state, view.error.code) == ("failed", "worker.lost")


async def test_a_cancelled_job_is_cancelled_and_not_failed(running: Running) -> None:
    job = await running.client.generate(pictures(running.workspace))
    worker = await running.crew.worker()
    await worker.told("generate")
    await running.client.cancel_job(job.id)
    await worker.told("cancel", job=job.id)
    worker.say(type="failed", job=job.id, error={"code": "job.cancelled", "title": "The job was cancelled."})
    assert (await running.client.job(job.id)).state == "cancelled"


async def test_what_a_new_word_replaces_is_kept_in_the_trash(running: Running) -> None:
    path = running.workspace.embeddings / "word.safetensors"
    path.write_bytes(b"old")
    request = CreateEmbedding(name="word", model="tiny")
    with pytest.raises(VocableError, match="There is a word 'word' already"):
        await running.client.create_embedding(request)
    job = await running.client.create_embedding(request.model_copy(update={"overwrite": True}))
    worker = await running.crew.worker()
    message = await worker.told("create")
    assert message["destination"] == str(path)
    path.unlink()
    path.write_bytes(b"new")
    worker.say(type="result", job=job.id, result={"embedding": str(path)})
    assert (await running.client.job(job.id)).state == "done"
    assert [kept.read_bytes() for kept in running.workspace.trash.iterdir()] == [b"old"]


async def test_of_two_jobs_that_write_one_file_the_second_replaces_what_the_first_made(running: Running) -> None:
    request = CreateEmbedding(name="word", model="tiny", overwrite=True)
    first, second = [await running.client.create_embedding(request) for _ in range(2)]
    worker = await running.crew.worker()
    await worker.told("create", job=first.id)
    path = running.workspace.embeddings / "word.safetensors"
    path.write_bytes(b"first")
    worker.say(type="result", job=first.id, result={"embedding": str(path)})
    await worker.told("create", job=second.id)
    assert [kept.read_bytes() for kept in running.workspace.trash.iterdir()] == [b"first"]
    worker.say(type="result", job=second.id, result={"embedding": str(path)})
    assert (await running.client.job(second.id)).state == "done"


async def test_a_run_is_found_by_id_by_its_beginning_and_by_name(running: Running) -> None:
    run = await running.train("two words")
    for reference in (run.id, run.id[:3], "two words"):
        assert (await running.client.run(reference)).id == run.id
    with pytest.raises(VocableError, match="There is no run 'nothing'"):
        await running.client.run("nothing")


async def test_two_unfinished_runs_cannot_share_a_name(running: Running) -> None:
    run, worker = await begin(running, "Word")
    with pytest.raises(VocableError) as caught:
        await running.train("word")
    assert caught.value.code == "run.name_taken"
    await finish(running, worker, run)
    await running.train("word")


async def test_all_faults_of_a_recipe_come_back_at_once(running: Running) -> None:
    values = {"name": "a/b", "model": "tiny", "data": {"folder": "faces"}, "train": {"learn_rat": 1}}
    with pytest.raises(RecipeError) as caught:
        await running.client.create_run(values)
    assert [fault.path for fault in caught.value.faults] == ["name", "train.learn_rat"]
    with pytest.raises(RecipeError) as caught:
        await running.client.create_run(recipe(running.workspace, model="none", data={"folder": "nowhere"}))
    assert [fault.path for fault in caught.value.faults] == ["model", "data.folder"]
    assert await running.client.runs() == []


async def test_the_same_key_makes_one_run_also_at_once_and_after_a_restart(workspace: Workspace) -> None:
    values = recipe(workspace)
    async with serving(workspace) as running, Client(running.client.socket) as other:
        made = await asyncio.gather(*(client.create_run(values, key="k") for client in (running.client, other)))
    async with serving(workspace) as running:
        again = await running.client.create_run(values, key="k")
        assert {run.id for run in (*made, again)} == {again.id}
        with pytest.raises(VocableError, match="was used for another request"):
            await running.client.create_run(recipe(workspace, "other"), key="k")


async def test_a_stopped_service_leaves_its_run_at_the_head_for_the_next(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run, worker = await begin(running, "first")
        await running.train("second")
    assert worker.sent[-1] == {"do": "pause", "run": run}
    async with serving(workspace) as running:
        await (await running.crew.worker()).told("train", run=run)
        assert [view.name for view in await running.client.runs()] == ["first", "second"]


async def test_a_run_that_was_to_pause_when_the_service_ended_is_paused(workspace: Workspace) -> None:
    async with serving(workspace) as running:
        run, worker = await begin(running)
        worker.obeys = False
        await running.client.command(run, "pause")
    async with serving(workspace) as running:
        assert (await running.client.run(run)).state == "paused"


async def test_a_second_signal_waits_for_no_checkpoint(workspace: Workspace) -> None:
    async with serving(workspace, checkpoint_timeout_s=10_000) as running:
        run, worker = await begin(running)
        worker.obeys = False
        os.kill(os.getpid(), signal.SIGTERM)
        await worker.told("pause", run=run)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asyncio.shield(running.task), PATIENCE_S)


async def test_work_is_refused_while_the_service_stops(workspace: Workspace) -> None:
    async with serving(workspace, checkpoint_timeout_s=10_000) as running:
        run, worker = await begin(running)
        job = await running.client.generate(pictures(workspace))
        waiting = asyncio.create_task(running.client.job(job.id))
        worker.obeys = False
        await running.client.shutdown()
        await worker.told("pause", run=run)
        for call in (running.train("other"), running.client.generate(pictures(workspace))):
            with pytest.raises(VocableError, match="The service is stopping"):
                await call
        worker.tell(run, event="ended", outcome="paused", step=3, embedding="")
        view = await waiting
        assert view.error is not None
        assert (view.state, view.error.code) == ("failed", "service.stopping")


async def test_previews_that_nobody_told_of_before_the_service_was_killed_are_noted(running: Running) -> None:
    run = await running.train()
    worker = await running.crew.worker()
    await worker.told("train", run=run.id)
    images = Path(run.folder, "images")
    leave_files(images, "word-20.png", "word-40-2.png", "word-40.png", "word-60.png", "other-40.png")
    worker.tell(run.id, event="preview", step=20, path=str(images / "word-20.png"), prompt="", seed=0)
    worker.tell(run.id, event="prepared", pictures=1, skipped=[], step=40, steps=100)
    view = await running.until(run.id, lambda view: view.preview_step == 40)
    made = [str(images / name) for name in ("word-20.png", "word-40.png", "word-40-2.png")]
    assert (view.preview, (await running.client.run(run.id)).previews) == (made[-1], made)


def leave_files(folder: Path, *names: str) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"a picture")


async def test_a_change_of_the_pictures_is_shown_harmlessly(running: Running) -> None:
    run, worker = await begin(running)
    title = "1 picture new (\x1b[31m.png) from step 5 on; 2 in all."
    worker.tell(run, event="dataset", after_step=4, pictures=2, title=title)
    view = await running.until(run, lambda view: view.dataset_change)
    assert view.dataset_change == title.replace("\x1b", "\\x1b")
