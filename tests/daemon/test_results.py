"""Words and hypernetworks of a real service: runs that make them, files that go and come back, news of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from daemon.protocol.hypernetworks import CreateHypernetwork
from daemon.protocol.jobs import CreateEmbedding
from daemon.protocol.service import StreamLine
from engine.embedding.tensors import encode_tensors
from engine.errors import VocableError
from tests.daemon.conftest import PATIENCE_S, Running, StandIn, recipe
from tests.daemon.networks import network_file, webui_file
from tests.daemon.test_wordfiles import code_of
from tests.daemon.words import drop, word_file


async def until_usable(running: Running, *names: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while {network.name for network in await running.client.hypernetworks() if network.usable} != {*names}:
            pass


def hypernetwork(running: Running, name: str) -> dict[str, object]:
    return recipe(running.workspace, name, kind="hypernetwork")


async def next_worker(running: Running) -> StandIn:
    return await running.crew.worker()


async def test_a_run_of_a_hypernetwork_writes_to_its_folder_beside_a_word_of_the_same_name(running: Running) -> None:
    word = await running.train("ink")
    run = await running.client.create_run(hypernetwork(running, "ink"))
    assert (word.kind, run.kind) == ("embedding", "hypernetwork")
    with pytest.raises(VocableError, match="trains 'ink' already"):
        await running.client.create_run(hypernetwork(running, "INK"))
    worker = await next_worker(running)
    await worker.told("train", run=word.id)
    await running.client.command(word.id, "stop")
    worker.tell(word.id, event="ended", outcome="stopped", step=3, embedding="")
    told = await worker.told("train", run=run.id)
    assert told["destination"] == str(running.workspace.hypernetworks / "ink.safetensors")
    assert told["recipe"]["kind"] == "hypernetwork"
    path = running.workspace.hypernetworks / "ink.safetensors"
    path.write_bytes(network_file())
    worker.tell(run.id, event="ended", outcome="finished", step=100, embedding=str(path))
    view = await running.until_state(run.id, "finished")
    assert view.embedding == str(path)
    assert (await running.client.hypernetwork_files.show("Ink")).usable


async def test_what_a_run_or_a_new_one_replaces_is_kept_and_can_be_taken_back(running: Running) -> None:
    folder, trash = running.workspace.hypernetworks, running.workspace.trash / "hypernetworks"
    (folder / "sub").mkdir()
    (folder / "ink.safetensors").write_bytes(network_file(0.5))
    (folder / "sub" / "ink.pt").write_bytes(webui_file(0.75))
    await until_usable(running, "ink")
    request = CreateHypernetwork(name="ink", model="tiny")
    assert await code_of(running.client.create_hypernetwork(request)) == "hypernetwork.exists"
    job = await running.client.create_hypernetwork(request.model_copy(update={"overwrite": True}))
    worker = await next_worker(running)
    told = await worker.told("create_hypernetwork", job=job.id)
    assert told["destination"] == str(folder / "ink.safetensors")
    kept = {path.read_bytes() for path in trash.iterdir()}
    assert kept == {network_file(0.5)}
    drop(folder / "ink.safetensors", network_file(0.25))
    worker.say(type="result", job=job.id, result={"hypernetwork": told["destination"]})
    assert (await running.client.job(job.id)).state == "done"
    assert {path.read_bytes() for path in trash.iterdir()} == {network_file(0.5), webui_file(0.75)}
    assert not (folder / "sub" / "ink.pt").exists()


async def test_one_is_deleted_and_taken_back_as_it_was(running: Running) -> None:
    path = running.workspace.hypernetworks / "red ink.pt"
    path.write_bytes(webui_file(0.5))
    await until_usable(running, "red ink")
    before = await running.client.hypernetwork_files.show("RED INK")
    assert await running.client.hypernetwork_files.delete("red ink") == before
    assert await running.client.hypernetworks() == []
    assert await code_of(running.client.hypernetwork_files.delete("red ink")) == "hypernetwork.unknown"
    path.write_bytes(webui_file(0.75))
    assert await code_of(running.client.hypernetwork_files.restore("red ink")) == "hypernetwork.exists"
    path.unlink()
    await running.client.hypernetwork_files.restore("red ink")
    assert read(path) == webui_file(0.5)
    await until_usable(running, "red ink")
    assert await code_of(running.client.hypernetwork_files.restore("red ink")) == "file.absent"
    await running.client.hypernetwork_files.delete("red ink")
    await running.client.hypernetwork_files.restore("red ink")
    assert list((running.workspace.trash / "hypernetworks").iterdir()) == []


def read(path: Path) -> bytes:
    return path.read_bytes()


async def test_a_file_that_comes_is_told_to_clients_and_to_the_worker(running: Running) -> None:
    run = await running.train()
    worker = await next_worker(running)
    await worker.told("train", run=run.id)
    stream = running.client.events()
    await anext(stream)
    (running.workspace.hypernetworks / "ink.pt").write_bytes(webui_file())
    (running.workspace.hypernetworks / "cut.pt").write_bytes(webui_file()[:-9])
    async with asyncio.timeout(PATIENCE_S):
        assert await counted(stream) == {"count": 2, "usable": 1}
        while not told_networks(worker):
            await running.client.info()
    assert told_networks(worker)[0]["widths"] == [96, 128, 160]
    (running.workspace.hypernetworks / "wide.pt").write_bytes(webui_file(widths=(320,)))
    async with asyncio.timeout(PATIENCE_S):
        while len((await running.client.state()).hypernetworks) < 3:
            pass
    await until_usable(running, "ink")
    state = await running.client.state()
    verdicts = {network.name: network.verdict for network in state.hypernetworks}
    assert verdicts == {"cut": "unreadable", "ink": "usable", "wide": "wrong_width"}
    assert state.folders["hypernetworks"]["entries"] == 3
    assert state.words == []


def told_networks(worker: StandIn) -> list[dict[str, object]]:
    newest = [message for message in worker.sent if message["do"] == "words"][-1]
    networks: list[dict[str, object]] = newest["hypernetworks"]
    return networks


async def counted(stream: object) -> dict[str, object]:
    async for line in stream:  # type: ignore[attr-defined]
        assert isinstance(line, StreamLine)
        if line.topic == "hypernetworks" and line.data["count"] == 2:
            return line.data
    raise AssertionError("the stream ended")


async def test_a_word_is_renamed_deleted_and_taken_back(running: Running) -> None:
    folder, files = running.workspace.embeddings, running.client.word_files
    (folder / "sub").mkdir()
    (folder / "sub" / "fox.safetensors").write_bytes(word_file())
    (folder / "owl.safetensors").write_bytes(word_file(vectors=2))
    await until_word(running, "fox", "owl")
    renamed = await files.rename("FOX", "red fox")
    assert (renamed.name, renamed.path) == ("red fox", str(folder / "sub" / "red fox.safetensors"))
    assert read(Path(renamed.path)) == word_file()
    assert {word.name for word in await running.client.words()} == {"red fox", "owl"}
    assert await code_of(files.rename("owl", "Red Fox")) == "embedding.exists"
    assert await code_of(files.rename("owl", "a/b")) == "embedding.name"
    assert await code_of(files.rename("fox", "elk")) == "embedding.unknown"
    assert (await files.rename("owl", "OWL")).name == "OWL"
    await files.delete("red fox")
    assert {word.name for word in await running.client.words()} == {"OWL"}
    assert (await files.restore("red fox")).path == str(folder / "red fox.safetensors")


async def test_a_file_of_several_words_is_not_moved_for_one_of_them(running: Running) -> None:
    path = running.workspace.embeddings / "lora.safetensors"
    rows = np.ones((1, 64), np.float32)
    names = ("fox", "owl")
    tensors = {f"bundle_emb.{name}.string_to_param.*": rows * (place + 1) for place, name in enumerate(names)}
    path.write_bytes(encode_tensors({**tensors, "lora_a": rows}, {}))
    await until_word(running, *names)
    assert await code_of(running.client.word_files.delete("fox")) == "embedding.several"
    assert await code_of(running.client.word_files.rename("fox", "elk")) == "embedding.several"
    assert path.exists()


async def until_word(running: Running, *names: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not set(names) <= {word.name for word in await running.client.words()}:
            pass


async def test_of_two_files_that_claim_a_name_each_answer_tells_of_the_one_that_it_means(running: Running) -> None:
    folder, files = running.workspace.embeddings, running.client.word_files
    for suffix, fill in ((".pt", 0.1), (".safetensors", 0.2)):
        (folder / f"fox{suffix}").write_bytes(b"broken" if suffix == ".pt" else word_file(fill))
    await until_word(running, "fox")
    async with asyncio.timeout(PATIENCE_S):
        while len(await running.client.words()) < 2:
            pass
    assert (await files.delete("fox")).path == str(folder / "fox.safetensors")
    assert not (folder / "fox.safetensors").exists()
    assert (await files.restore("fox")).path == str(folder / "fox.safetensors")


async def test_two_jobs_do_not_make_a_word_of_one_name(running: Running) -> None:
    request = CreateEmbedding(name="owl", model="tiny")
    await running.client.create_embedding(request)
    assert await code_of(running.client.create_embedding(request)) == "embedding.exists"
    await running.client.create_embedding(request.model_copy(update={"overwrite": True}))
