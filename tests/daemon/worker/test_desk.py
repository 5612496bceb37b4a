"""The real worker with the real engine and the starter model. One process serves the whole file, as in life."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from daemon.worker.supervise import COMMAND
from engine.embedding.read import read_embedding
from engine.embedding.vectors import Embedding
from engine.embedding.write import save_embedding
from engine.hypernetwork.read import read_hypernetwork
from engine.models.catalog import STARTER_FOLDER
from engine.models.starter.sample import HELD_OUT_DIR, TRAIN_DIR
from tests.daemon.networks import network_file
from tests.daemon.words import embedding, word_file
from tests.daemon.worker.conftest import Watched

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 240.0
"""Only a hang takes this long."""


class Worker(Watched):
    """A real worker; work is given a fresh id each time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "worker.log", None, COMMAND)
        self.folder = folder
        self._given = 0

    async def start(self) -> None:
        places = {"models": [], "datasets": [], "templates": [], "latents": str(self.folder / "latents")}
        await self.worker.start(places)
        await self.find(lambda message: message["type"] == "ready")

    async def find(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for the first message that meets `condition`, the ones that came already included."""
        seen = 0
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._news.clear()
                for message in self.messages[seen:]:
                    if condition(message):
                        return message
                seen = len(self.messages)
                assert not self.exits, self.exits[0].title
                await self._news.wait()

    def give(self, do: str, request: dict[str, Any], **more: Any) -> str:
        self._given += 1
        job = f"job{self._given}"
        self.worker.send({"do": do, "job": job, "request": request, **more})
        return job

    async def answer(self, identifier: str) -> dict[str, Any]:
        """What became of a job: its result, or its error."""
        message = await self.find(
            lambda message: message.get("job") == identifier and message["type"] in ("result", "failed")
        )
        answer: dict[str, Any] = message.get("result") or message["error"]
        return answer

    async def do(self, do: str, request: dict[str, Any], **more: Any) -> dict[str, Any]:
        return await self.answer(self.give(do, request, **more))

    def train(self, name: str, save: dict[str, Any] | None = None, **settings: Any) -> str:
        """Begin a short run and return its id."""
        self._given += 1
        run = f"run{self._given}"
        recipe = {
            "name": name,
            "start": {"init_text": "girl", "vectors": 1},
            "data": {"folder": str(self.folder / "pictures"), "template": "portrait_filewords"},
            "train": {"steps": 6, "batch_size": 1, **settings},
            "preview": {"steps": 200},
            "save": {"every": 0, "images_every": 0, "checkpoint_every": 3, **(save or {})},
        }
        where = {"folder": str(self.folder / run), "destination": str(self.folder / f"{name}.safetensors")}
        self.worker.send({"do": "train", "run": run, "recipe": recipe, **where})
        return run

    async def event(self, run: str, kind: str) -> dict[str, Any]:
        """Wait for an event of a run; a failed run ends the wait with its error."""
        message = await self.find(
            lambda message: (
                message.get("run") == run and (message["type"] == "failed" or message["event"]["event"] == kind)
            )
        )
        found: dict[str, Any] = message.get("error") or message["event"]
        return found

    def trained(self, name: str) -> bytes:
        return read(self.folder / f"{name}.safetensors").vectors.tobytes()


def read(path: Path) -> Embedding:
    return read_embedding(path.read_bytes(), path.stem)


def on_the_wire(name: str, path: Path) -> dict[str, Any]:
    """What the supervisor tells of a word."""
    data = path.read_bytes()
    word = read_embedding(data, name)
    digest = hashlib.sha256(data).hexdigest()
    facts = {"split": word.split, "model": word.model, "model_hash": word.model_hash}
    vectors, width = word.vectors.shape
    told = {"name": name, "path": str(path), "canonical": digest, "hash": "0" * 64}
    return {**told, "vectors": vectors, "width": width, **facts}


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def picture_request(output: Path, prompt: str = "portrait of a girl", **more: Any) -> dict[str, Any]:
    return {"prompts": [prompt], "steps": 1, "cfg_scale": 1, "output": str(output), **more}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    folder = tmp_path_factory.mktemp("worker")
    (folder / "pictures").mkdir()
    for picture in sorted(TRAIN_DIR.glob("*.png"))[:2]:
        shutil.copy(picture, folder / "pictures")
        shutil.copy(picture.with_suffix(".txt"), folder / "pictures")
    worker = Worker(folder)
    await worker.start()
    yield worker
    await worker.worker.stop(timeout_s=PATIENCE_S)
    assert [(end.kind, end.code) for end in worker.exits] == [("asked", 0)]
    assert "Traceback" not in worker.log.read_text()


def difference(first: Path, second: Path) -> int:
    """Largest difference of two pictures in any channel, in levels of 255."""
    return max(abs(one - other) for one, other in zip(pixels(str(first)), pixels(str(second)), strict=True))


async def test_several_pictures_are_numbered_and_seeds_count_up(worker: Worker, tmp_path: Path) -> None:
    both = await worker.do("generate", picture_request(tmp_path / "a.png", count=2, seed=5))
    assert both == {"pictures": [str(tmp_path / "a-1.png"), str(tmp_path / "a-2.png")], "warnings": []}
    alone = await worker.do("generate", picture_request(tmp_path / "b.png", seed=6))
    assert alone["pictures"] == [str(tmp_path / "b.png")]
    assert difference(tmp_path / "b.png", tmp_path / "a-2.png") <= 2  # a batch of two rounds otherwise than one
    assert difference(tmp_path / "a-1.png", tmp_path / "a-2.png") > 2


async def test_a_new_word_is_made_and_prompts_use_it_once_the_table_of_words_has_it(
    worker: Worker, tmp_path: Path
) -> None:
    destination = tmp_path / "blue.safetensors"
    request = {"name": "my word", "init_text": "blue", "vectors": 2}
    assert await worker.do("create", request, destination=str(destination)) == {"embedding": str(destination)}
    assert read(destination).vectors.shape[0] == 2

    wide = tmp_path / "wide.safetensors"
    wide.write_bytes(word_file(width=7))
    table = [on_the_wire("my word", destination), on_the_wire("portrait", wide)]
    prompt = "portrait of my word"
    await worker.do("generate", picture_request(tmp_path / "without.png", prompt))
    worker.worker.send({"do": "words", "words": table})
    await worker.do("generate", picture_request(tmp_path / "with.png", prompt))
    worker.worker.send({"do": "words", "words": []})
    await worker.do("generate", picture_request(tmp_path / "again.png", prompt))
    assert pixels(str(tmp_path / "with.png")) != pixels(str(tmp_path / "without.png"))
    assert pixels(str(tmp_path / "again.png")) == pixels(str(tmp_path / "without.png"))


async def test_a_hypernetwork_is_made_as_it_was_asked_for(worker: Worker, tmp_path: Path) -> None:
    destination = tmp_path / "ink.safetensors"
    request = {"name": "ink", "sizes": [1, 0.5, 1], "activation": "relu", "init": "KaimingNormal", "widths": [160, 128]}
    request |= {"dropout": [0, 0.25, 0], "layer_norm": True, "seed": 5}
    answer = await worker.do("create_hypernetwork", request, destination=str(destination))
    assert answer == {"hypernetwork": str(destination)}
    made = read_hypernetwork(destination.read_bytes(), "ink")
    assert (made.sizes, made.activation, made.weight_init) == ((1, 0.5, 1), "relu", "KaimingNormal")
    assert (made.dropout, made.layer_norm, sorted(made.widths)) == ((0, 0.25, 0), True, [128, 160])
    assert (made.model, made.step) == ("starter", 0)
    refused = await worker.do("create_hypernetwork", {"name": "ink", "widths": [77]}, destination=str(destination))
    assert refused["code"] == "hypernetwork.widths"


async def test_a_hypernetwork_works_while_a_tag_names_it(worker: Worker, tmp_path: Path) -> None:
    ink = tmp_path / "ink.safetensors"
    ink.write_bytes(network_file(0.05))
    digest = hashlib.sha256(ink.read_bytes()).hexdigest()
    told = {"name": "ink", "path": str(ink), "canonical": digest, "hash": "0" * 64, "widths": [96, 128, 160]}
    told |= {"model": "starter", "model_hash": ""}
    lost = told | {"name": "lost", "canonical": "0" * 64}
    foreign = told | {"name": "foreign", "widths": [320]}
    worker.worker.send({"do": "words", "words": [], "hypernetworks": [told, lost, foreign]})
    pictures = {}
    for strength in ("", "<hypernet:ink:0>", "<hypernet:Ink:0.5>", "<hypernet:ink>"):
        path = tmp_path / f"{strength.strip('<>').replace(':', ' ')}.png"
        answer = await worker.do("generate", picture_request(path, f"a girl {strength}".strip()))
        assert answer["warnings"] == []
        pictures[strength] = pixels(str(path))
    assert pictures["<hypernet:ink:0>"] == pictures[""]
    assert len(set(pictures.values())) == 3
    answer = await worker.do("generate", picture_request(tmp_path / "a.png", "a girl <hypernet:foreign>"))
    assert "no hypernetwork 'foreign'" in answer["warnings"][0]
    answer = await worker.do("generate", picture_request(tmp_path / "a.png", "a girl <hypernet:lost>"))
    assert answer["code"] == "hypernetwork.lost"
    worker.worker.send({"do": "words", "words": []})


async def test_of_all_words_only_those_of_the_prompt_are_read_and_never_other_bytes_than_told(
    worker: Worker, tmp_path: Path
) -> None:
    good = tmp_path / "good.safetensors"
    good.write_bytes(word_file(width=128))
    words = {"good": good, "changed": tmp_path / "changed", "deleted": tmp_path / "deleted"}
    for name in ("changed", "deleted"):
        shutil.copy(good, words[name])
    worker.worker.send({"do": "words", "words": [on_the_wire(name, path) for name, path in words.items()]})
    words["changed"].write_bytes(word_file(0.25, width=128))
    words["deleted"].unlink()
    assert "pictures" in await worker.do("generate", picture_request(tmp_path / "a.png", "a girl, good"))
    for name in ("changed", "deleted"):
        answer = await worker.do("generate", picture_request(tmp_path / "b.png", f"a {name}"))
        assert answer["code"] == "embedding.lost"
        assert f"'{name}'" in answer["title"]
    worker.worker.send({"do": "words", "words": []})


async def test_what_a_prompt_asks_for_in_vain_is_told_beside_the_pictures(worker: Worker, tmp_path: Path) -> None:
    destination = tmp_path / "old.safetensors"
    save_embedding(destination, replace(embedding(width=128), name="old"))
    told = on_the_wire("old", destination) | {"model": "v1-5", "model_hash": "6ce0161689"}
    worker.worker.send({"do": "words", "words": [told]})
    request = picture_request(tmp_path / "a.png", "old <lora:\x1b[31m:1> embedding:nobody")
    answer = await worker.do("generate", request)
    assert len(answer["warnings"]) == 3
    assert "no word 'nobody'" in answer["warnings"][0]
    assert "<lora:\\x1b[31m:1> has no effect" in answer["warnings"][1]
    assert "'old' was trained on v1-5 [6ce0161689], not on starter" in answer["warnings"][2]
    worker.worker.send({"do": "words", "words": []})


async def test_settings_of_prompts_reach_the_pictures(worker: Worker, tmp_path: Path) -> None:
    plain = picture_request(tmp_path / "a.png", "a (girl:1.5), [pink|blue]", steps=2)
    await worker.do("generate", plain)
    for number, change in enumerate(({"emphasis": "Ignore"}, {"clip_skip": 2}, {"compat": "webui"})):
        other = tmp_path / f"{number}.png"
        await worker.do("generate", {**plain, **change, "output": str(other)})
        assert difference(tmp_path / "a.png", other) > 2


async def test_phrases_are_measured_in_their_order(worker: Worker, tmp_path: Path) -> None:
    for suffix in (".png", ".txt"):
        shutil.copy(HELD_OUT_DIR / f"0000{suffix}", tmp_path)
    request = {"folder": str(tmp_path), "template": "portrait_filewords", "phrases": ["girl", "sky", "girl"]}
    losses = (await worker.do("evaluate", request))["losses"]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": "nobody"}, "model.unknown"),
        ({"output": "/proc/nowhere/a.png"}, "disk.write"),
    ],
)
async def test_a_job_that_fails_says_why_and_the_next_one_works(
    worker: Worker, tmp_path: Path, change: dict, code: str
) -> None:
    answer = await worker.do("generate", {**picture_request(tmp_path / "a.png"), **change})
    assert answer["code"] == code
    assert len(answer["title"]) > 10
    assert "pictures" in await worker.do("generate", picture_request(tmp_path / "b.png"))


async def test_a_job_is_cancelled_at_work_and_in_the_queue(worker: Worker, tmp_path: Path) -> None:
    endless = worker.give("generate", picture_request(tmp_path / "long.png", steps=500, count=64))
    waiting = worker.give("generate", picture_request(tmp_path / "waiting.png"))
    await worker.find(lambda message: message.get("job") == endless and message["type"] == "job")
    worker.worker.send({"do": "cancel", "job": waiting})
    assert (await worker.answer(waiting))["code"] == "job.cancelled"
    worker.worker.send({"do": "cancel", "job": endless})
    assert (await worker.answer(endless))["code"] == "job.cancelled"
    assert os.listdir(tmp_path) == []


async def test_a_refused_recipe_says_all_faults_and_no_run_is_left(worker: Worker) -> None:
    worker.worker.send(
        {
            "do": "train",
            "run": "bad",
            "recipe": {"name": "x", "model": "nobody", "data": {"folder": "/nowhere"}},
            "folder": str(worker.folder / "bad"),
            "destination": str(worker.folder / "x.safetensors"),
        }
    )
    failed = await worker.find(lambda message: message.get("run") == "bad" and message["type"] == "failed")
    assert failed["error"]["code"] == "recipe.invalid"
    assert {fault["path"] for fault in failed["error"]["faults"]} == {"model", "data.folder"}
    assert not (worker.folder / "bad").exists()


async def test_pictures_pauses_and_resumes_change_no_number_of_a_run(worker: Worker, tmp_path: Path) -> None:
    calm = worker.train("calm")
    assert (await worker.event(calm, "ended"))["outcome"] == "finished"

    busy = worker.train("busy")
    await worker.event(busy, "prepared")
    picture = worker.give("generate", picture_request(tmp_path / "beside.png"))
    measured = worker.give(
        "evaluate", {"folder": str(worker.folder / "pictures"), "template": "portrait_filewords", "phrases": ["girl"]}
    )
    await worker.answer(picture)
    assert not any(message.get("run") == busy and is_end(message) for message in worker.messages)
    assert "losses" in await worker.answer(measured)
    assert (await worker.event(busy, "ended"))["outcome"] == "finished"

    paused = worker.train("paused")
    await worker.event(paused, "prepared")
    worker.worker.send({"do": "pause", "run": paused})
    end = await worker.event(paused, "ended")
    assert (end["outcome"], end["embedding"]) == ("paused", "")
    assert end["step"] < 6
    again = resend(worker, paused, "paused")
    await worker.find(lambda message: message.get("run") == again and is_end(message, "finished"))
    assert worker.trained("calm") == worker.trained("busy") == worker.trained("paused")


async def test_another_model_is_loaded_beside_a_run_and_the_runs_own_stays(worker: Worker, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(STARTER_FOLDER, other)
    run = worker.train("first", steps=10_000)
    await worker.event(run, "progress")
    loaded = [message for message in worker.messages if message["type"] == "model"]
    request = picture_request(tmp_path / "a.png", model=str(other))
    assert "pictures" in await worker.do("generate", request)
    worker.worker.send({"do": "pause", "run": run})
    assert (await worker.event(run, "ended"))["outcome"] == "paused"
    assert [message for message in worker.messages if message["type"] == "model"] == loaded
    await worker.do("generate", request)
    assert [message for message in worker.messages if message["type"] == "model"][-1]["name"] == "other"


async def test_stop_saves_the_word_so_far_even_when_a_pause_follows(worker: Worker) -> None:
    run = worker.train("early", steps=10_000)
    await worker.event(run, "progress")
    worker.worker.send({"do": "stop", "run": run})
    worker.worker.send({"do": "pause", "run": run})
    end = await worker.event(run, "ended")
    assert end["outcome"] == "stopped"
    assert read(Path(end["embedding"])).step == end["step"] > 0


async def test_a_command_reaches_a_run_that_still_waits(worker: Worker, tmp_path: Path) -> None:
    job = worker.give("generate", picture_request(tmp_path / "first.png", steps=5))
    run = worker.train("waiting", steps=10_000)
    worker.worker.send({"do": "pause", "run": run})
    await worker.answer(job)
    assert (await worker.event(run, "ended"))["outcome"] == "paused"


@pytest.mark.parametrize("command", ["pause", "stop"])
@pytest.mark.parametrize(
    "sign",
    [
        {"event": "phase", "phase": "loading"},
        {"event": "phase", "phase": "encoding"},
        {"event": "phase", "phase": "training"},
        {"event": "progress"},
        {"event": "phase", "phase": "preview"},
        {"event": "checkpoint", "step": 3},
    ],
    ids=["loading", "encoding", "first-step", "step", "preview", "checkpoint"],
)
async def test_a_command_is_followed_in_every_phase_also_when_it_comes_twice(
    worker: Worker, sign: dict[str, Any], command: str
) -> None:
    is_preview = sign.get("phase") == "preview"
    run = worker.train("told", save={"images_every": 2 if is_preview else 0}, steps=10_000)
    await worker.find(lambda message: message.get("run") == run and sign.items() <= message["event"].items())
    for _ in range(2):
        worker.worker.send({"do": command, "run": run})
    end = await worker.event(run, "ended")
    assert (end["outcome"], end["step"] < 10_000) == ("paused" if command == "pause" else "stopped", True)
    assert bool(end["embedding"]) == (command == "stop" and end["step"] > 0)
    worker.worker.send({"do": command, "run": run})
    await worker.do("generate", picture_request(worker.folder / "after.png"))
    assert sum(message.get("run") == run and is_end(message) for message in worker.messages) == 1


@pytest.mark.parametrize("command", ["pause", "stop"])
async def test_a_command_that_comes_while_the_finished_word_is_written_changes_nothing(
    worker: Worker, command: str
) -> None:
    run = worker.train("done")
    saving = {"event": "phase", "phase": "saving"}
    await worker.find(lambda message: message.get("run") == run and saving.items() <= message["event"].items())
    worker.worker.send({"do": command, "run": run})
    assert (await worker.event(run, "ended"))["outcome"] == "finished"


async def test_what_the_worker_does_stands_on_its_board(worker: Worker) -> None:
    run = worker.train("shown", steps=10_000)
    await worker.event(run, "progress")
    mark = worker.worker._board.read()
    worker.worker.send({"do": "pause", "run": run})
    end = await worker.event(run, "ended")
    assert mark.phase in ("first step", "step")
    assert mark.step is not None
    assert 0 <= mark.step <= end["step"]
    job = worker.give("generate", picture_request(worker.folder / "board.png", steps=200))
    await worker.find(lambda message: message.get("job") == job and message["type"] == "job")
    assert worker.worker._board.read().phase == "job"
    worker.worker.send({"do": "cancel", "job": job})
    await worker.answer(job)


async def test_a_worker_that_leaves_in_the_middle_of_a_run_checkpoints_it(worker: Worker, tmp_path: Path) -> None:
    leaver = Worker(worker.folder)
    await leaver.start()
    run = leaver.train("leaver", steps=10_000)
    await leaver.event(run, "progress")
    job = leaver.give("generate", picture_request(tmp_path / "a.png", steps=500))
    await leaver.find(lambda message: message.get("job") == job)
    await leaver.worker.stop(timeout_s=PATIENCE_S)
    assert [(end.kind, end.code) for end in leaver.exits] == [("asked", 0)]
    events = [message["event"]["event"] for message in leaver.messages if message.get("run") == run]
    assert events[-1] == "ended"
    assert "checkpoint" in events[-3:]
    assert not any(message["type"] in ("result", "failed") for message in leaver.messages)


def is_end(message: dict[str, Any], outcome: str = "") -> bool:
    event = message.get("event", {})
    return event.get("event") == "ended" and outcome in ("", event["outcome"])


def resend(worker: Worker, run: str, name: str) -> str:
    """Give a run to the worker again, in the folder where it left off."""
    shutil.move(worker.folder / run, worker.folder / f"run{worker._given + 1}")
    return worker.train(name)
