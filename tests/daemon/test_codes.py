"""Every error code that the API declares, provoked on a real service."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from daemon.api.codes import CODES
from daemon.inspector.inspector import Inspector
from daemon.paths import Workspace
from daemon.salvage import open_database
from daemon.schema import VERSION
from engine.embedding.tensors import encode_tensors
from engine.embedding.write import encode_safetensors
from tests.daemon.conftest import PATIENCE_S, Running, open_http, recipe, serving
from tests.daemon.networks import network_file, webui_file
from tests.daemon.test_api import send_raw
from tests.daemon.test_crashes import break_down
from tests.daemon.test_wordfiles import STARTER, put, word
from tests.daemon.words import picture, word_file

Answer = tuple[int, dict[str, Any]]
"""Status and body."""


@dataclass
class Stage:
    """Where a code is provoked."""

    folder: Path
    workspace: Workspace
    patch: pytest.MonkeyPatch

    @asynccontextmanager
    async def service(self) -> AsyncIterator[tuple[Running, httpx2.AsyncClient]]:
        async with serving(self.workspace) as running, open_http(running) as http:
            yield running, http

    def file(self, name: str, data: bytes) -> str:
        return put(self.folder / name, data)

    def body(self, **changes: Any) -> dict[str, Any]:
        """Of a conversion."""
        fitting = self.file("fox.safetensors", encode_safetensors(word()))
        return {"path": fitting, "format": "safetensors", "output": str(self.folder / "new.safetensors"), **changes}


Request = Callable[[Stage], tuple[str, str, Any]]
"""Method, path and body."""


def convert(make: Callable[[Stage], dict[str, Any]]) -> Request:
    return lambda stage: ("POST", "/v1/convert", stage.body(**make(stage)))


def tensors(**values: np.ndarray[Any, Any]) -> bytes:
    return encode_tensors(values, {})


def several(stage: Stage) -> dict[str, Any]:
    rows = word(768).vectors
    values = {f"bundle_emb.{name}.string_to_param.*": rows for name in ("fox", "owl")} | {"lora_a": rows}
    return {"path": stage.file("lora.safetensors", encode_tensors(values, {}))}


def sparse(stage: Stage) -> dict[str, Any]:
    path = stage.folder / "huge.pt"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    return {"path": str(path)}


PICTURES = {"prompts": ["a"], "output": "/x.png", "model": "tiny"}
NOT_FINITE = tensors(emb_params=np.full((1, 64), np.nan, np.float32))

CAPTIONS = "/v1/datasets/faces/captions"


def captions(*changes: dict[str, Any]) -> Request:
    whole = [{"picture": "one.png", "text": "new", "was": None, **change} for change in changes]
    return lambda stage: ("PUT", CAPTIONS, {"changes": whole})


def prepare(make: Callable[[Stage], dict[str, Any]]) -> Request:
    whole = {"source": "faces", "destination": "ready"}
    return lambda stage: ("POST", "/v1/preprocess", whole | make(stage))


def foreign_blip(stage: Stage) -> dict[str, Any]:
    (stage.workspace.models / "blip").mkdir()
    for name in ("preprocessor_config.json", "tokenizer.json", "model.safetensors"):
        put(stage.workspace.models / "blip" / name, b"{}")
    put(stage.workspace.models / "blip" / "config.json", b'{"model_type": "clip"}')
    return {"options": {"captions": {"make": "blip"}}}


def without_extra(stage: Stage) -> dict[str, Any]:
    stage.patch.setattr("engine.preprocess.caption_files.importlib.util.find_spec", lambda name: None)
    return {"options": {"captions": {"make": "tags"}}}


SPOILT_NETWORK = webui_file(0.5).replace(struct.pack("<f", 0.5), struct.pack("<f", np.nan))
ODD_NETWORK = network_file().replace(b"0.25", b"0.50")

REQUESTS: dict[str, Request] = {
    "caption.extra": prepare(without_extra),
    "caption.missing": prepare(lambda stage: {"options": {"captions": {"make": "blip"}}}),
    "caption.unreadable": prepare(foreign_blip),
    "dataset.empty": prepare(lambda stage: {"source": str(stage.workspace.inbox)}),
    "preprocess.destination": prepare(lambda stage: {"destination": "../elsewhere"}),
    "preprocess.same": prepare(lambda stage: {"destination": "faces"}),
    "caption.changed": captions({"was": "another"}),
    "dataset.caption": captions({}, {}),
    "dataset.missing": lambda stage: ("GET", "/v1/datasets/none", None),
    "template.unknown": lambda stage: ("GET", "/v1/templates/nothing", None),
    "dataset.picture": convert(lambda stage: {"format": "png", "picture": stage.file("p.png", b"no picture")}),
    "disk.write": convert(lambda stage: {"output": stage.file("file", b"") + "/new.safetensors"}),
    "embedding.absent": convert(lambda stage: {"path": stage.file("plain.png", picture())}),
    "embedding.exists": lambda stage: ("POST", "/v1/embeddings", {"name": "taken", "model": "tiny"}),
    "embedding.halves": convert(lambda stage: {"second": stage.file("b.safetensors", word_file(vectors=5))}),
    "embedding.name": lambda stage: ("POST", "/v1/embeddings", {"name": "a/b", "model": "tiny"}),
    "embedding.not_finite": convert(lambda stage: {"path": stage.file("nan.safetensors", NOT_FINITE)}),
    "embedding.several": convert(several),
    "embedding.shape": convert(
        lambda stage: {"path": stage.file("s.safetensors", tensors(emb_params=np.zeros((1, 1, 64), np.float32)))}
    ),
    "embedding.unknown": lambda stage: ("POST", "/v1/embeddings/none/rename", {"name": "other"}),
    "embedding.unreadable": convert(lambda stage: {"path": stage.file("cut.pt", b"PK\3\4")}),
    "embedding.unsupported": convert(
        lambda stage: {
            "path": stage.file("u.safetensors", tensors(a=np.zeros((3, 3), np.float32), b=np.zeros((2, 2), np.float32)))
        }
    ),
    "embedding.verify": convert(lambda stage: {"format": "diffusers", "output": str(stage.folder / "t5.safetensors")}),
    "file.absent": convert(lambda stage: {"path": "/nothing"}),
    "file.busy": convert(lambda stage: {"path": "/proc/self/status"}),
    "file.exists": convert(lambda stage: {"output": stage.file("there.safetensors", b"")}),
    "file.kind": convert(lambda stage: {"path": str(stage.folder)}),
    "file.size": convert(sparse),
    "file.unreadable": convert(lambda stage: {"path": "/" + "a" * 300}),
    "hypernetwork.exists": lambda stage: ("POST", "/v1/hypernetworks", {"name": "taken", "model": "tiny"}),
    "hypernetwork.name": lambda stage: ("POST", "/v1/hypernetworks", {"name": "a/b", "model": "tiny"}),
    "hypernetwork.not_finite": convert(lambda stage: {"path": stage.file("nan.pt", SPOILT_NETWORK)}),
    "hypernetwork.shape": convert(lambda stage: {"path": stage.file("odd.safetensors", ODD_NETWORK)}),
    "hypernetwork.unknown": lambda stage: ("GET", "/v1/hypernetworks/none", None),
    "hypernetwork.unsupported": convert(lambda stage: {"path": stage.file("ink.pt", webui_file()), "format": "png"}),
    "job.unknown": lambda stage: ("GET", "/v1/jobs/none", None),
    "model.unknown": lambda stage: ("POST", "/v1/generate", {**PICTURES, "model": "none"}),
    "model.unreadable": lambda stage: ("POST", "/v1/generate", {**PICTURES, "model": str(stage.folder)}),
    "picture.silent": lambda stage: ("POST", "/v1/parameters", {"path": stage.file("silent.png", picture())}),
    "picture.small": convert(lambda stage: {"format": "png", "picture": stage.file("small.png", picture())}),
    "recipe.invalid": lambda stage: ("POST", "/v1/runs", {"recipe": {}}),
    "request.fields": lambda stage: ("POST", "/v1/runs", {}),
    "request.invalid": lambda stage: ("POST", "/v1/runs", []),
    "request.method": lambda stage: ("DELETE", "/v1/state", None),
    "request.unknown": lambda stage: ("GET", "/v1/nothing", None),
    "settings.stale": lambda stage: ("PUT", "/v1/settings", {"settings": {}}),
    "run.unknown": lambda stage: ("GET", "/v1/runs/none", None),
}
"""Codes that one request provokes, whatever else there is."""


async def read(response: Awaitable[httpx2.Response]) -> Answer:
    answer = await response
    return answer.status_code, answer.json()


async def too_long(stage: Stage) -> Answer:
    put(
        stage.workspace.embeddings / "long.safetensors",
        encode_safetensors(replace(word(), vectors=np.ones((80, STARTER.width), np.float32))),
    )
    async with stage.service() as (running, http), asyncio.timeout(PATIENCE_S):
        while not any(known.hash for known in await running.client.words()):
            pass
        return await read(http.post("/v1/tokens", json={"prompt": "long"}))


async def full_disk(stage: Stage) -> Answer:
    def write(handle: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stage.patch.setattr("engine.files.write_all", write)
    return await ask_to_convert(stage)


async def bad_disk(stage: Stage) -> Answer:
    stage.patch.setattr("engine.files.write_all", lambda handle, data: os.write(handle, data[:-1] + b"!"))
    return await ask_to_convert(stage)


async def lost_inspector(stage: Stage) -> Answer:
    stage.patch.setattr("daemon.shelves.Inspector", partial(Inspector, wall_s=0.0))
    return await ask_to_convert(stage)


async def no_inspector(stage: Stage) -> Answer:
    stage.patch.setattr("daemon.shelves.Inspector", partial(Inspector, command=("/bin/true",)))
    return await ask_to_convert(stage)


async def unequal_network(stage: Stage) -> Answer:
    stage.patch.setattr("daemon.shelves.Inspector", partial(Inspector, command=(sys.executable, "-c", UNEQUAL)))
    path = stage.file("ink.pt", webui_file())
    async with stage.service() as (_, http):
        return await read(http.post("/v1/convert", json=stage.body(path=path)))


UNEQUAL = """
from daemon.inspector import main
from engine.hypernetwork import convert
convert.is_same = lambda read, written: False
main.main()
"""


async def sdxl(stage: Stage) -> Answer:
    stage.patch.setattr("daemon.data.find_model", lambda *_, **__: replace(STARTER, family="sdxl"))
    async with stage.service() as (_, http):
        return await read(http.post("/v1/hypernetworks", json={"name": "ink", "model": "tiny"}))


async def ask_to_convert(stage: Stage) -> Answer:
    async with stage.service() as (_, http):
        return await read(http.post("/v1/convert", json=stage.body()))


async def failing_history(stage: Stage) -> Answer:
    def fail(*arguments: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with stage.service() as (running, http):
        run = await running.train()
        stage.patch.setattr("daemon.history.read_losses", fail)
        return await read(http.get(f"/v1/runs/{run.id}/losses"))


async def fault_of_ours(stage: Stage) -> Answer:
    stage.patch.setattr("daemon.service.Service.state_json", lambda self: 1 / 0)
    async with stage.service() as (_, http):
        return await read(http.get("/v1/state"))


async def full_queue(stage: Stage) -> Answer:
    stage.patch.setattr("daemon.jobs.MAX_WAITING", 1)
    async with stage.service() as (_, http):
        await http.post("/v1/generate", json=PICTURES)
        return await read(http.post("/v1/generate", json=PICTURES))


async def paused_queue(stage: Stage) -> Answer:
    async with stage.service() as (running, http):
        await break_down(running)
        return await read(http.post("/v1/generate", json=PICTURES))


async def foreign(stage: Stage) -> Answer:
    async with stage.service() as (_, http):
        return await read(http.get("/v1/", headers={"origin": "http://evil"}))


async def reused_key(stage: Stage) -> Answer:
    async with stage.service() as (running, http):
        await running.client.create_run(recipe(stage.workspace, "one"), key="key")
        body = {"recipe": recipe(stage.workspace, "two")}
        return await read(http.post("/v1/runs", json=body, headers={"idempotency-key": "key"}))


async def stranger(stage: Stage) -> Answer:
    async with stage.service() as (running, _):
        stage.patch.setattr("daemon.connections.peer_uid", lambda connection: os.getuid() + 1)
        answer = await send_raw(running.client.socket, b"")
        stage.patch.undo()
        return answer


async def slow(stage: Stage) -> Answer:
    async with stage.service() as (running, _):
        stage.patch.setattr("daemon.connections.HEADER_TIMEOUT_S", 0.02)
        answer = await send_raw(running.client.socket, b"GET /v1/")
        stage.patch.undo()
        return answer


async def busy(stage: Stage) -> Answer:
    async with stage.service() as (running, _):
        stage.patch.setattr("daemon.connections.MAX_CONNECTIONS", 0)
        answer = await send_raw(running.client.socket, b"")
        stage.patch.undo()
        return answer


async def too_large(stage: Stage) -> Answer:
    async with stage.service() as (_, http):
        return await read(http.post("/v1/runs", content=b" " * ((1 << 20) + 1)))


async def ambiguous(stage: Stage) -> Answer:
    identifiers = iter(("aaaaa1", "aaaaa2"))
    stage.patch.setattr("daemon.runs.RunTable.new_id", lambda table: next(identifiers))
    async with stage.service() as (running, http):
        await running.train("one")
        await running.train("two")
        return await read(http.get("/v1/runs/aaa"))


async def taken_name(stage: Stage) -> Answer:
    async with stage.service() as (running, http):
        await running.train("one")
        return await read(http.post("/v1/runs", json={"recipe": recipe(stage.workspace, "one")}))


async def wrong_state(stage: Stage) -> Answer:
    async with stage.service() as (running, http):
        run = await running.train()
        await (await running.crew.worker()).told("train", run=run.id)
        return await read(http.post(f"/v1/runs/{run.id}/move", json={"place": "first"}))


async def degraded(stage: Stage) -> Answer:
    open_database(stage.workspace.database, now=0.0)[0].close()
    with closing(sqlite3.connect(stage.workspace.database)) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    async with stage.service() as (_, http):
        return await read(http.post("/v1/runs", json={"recipe": recipe(stage.workspace)}))


async def stopping(stage: Stage) -> Answer:
    async with stage.service() as (running, http):
        run = await running.train()
        worker = await running.crew.worker()
        await worker.told("train", run=run.id)
        worker.obeys = False
        await running.client.shutdown()
        await worker.told("pause")
        answer = await read(http.post("/v1/queue/resume"))
        await asyncio.wait_for(asyncio.shield(running.task), PATIENCE_S)
        return answer


async def bad_settings(stage: Stage) -> Answer:
    async with stage.service() as (running, http):
        headers = {"if-match": (await running.client.settings()).revision}
        body = {"settings": {"service": {"idle_unload": 5}}}
        return await read(http.put("/v1/settings", json=body, headers=headers))


async def closed_folder(stage: Stage) -> Answer:
    def refuse(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async with stage.service() as (_, http):
        stage.patch.setattr("daemon.captions.os.listdir", refuse)
        answer = await read(http.get("/v1/datasets/faces"))
        stage.patch.undo()
        return answer


PROVOKE: dict[str, Callable[[Stage], Awaitable[Answer]]] = {
    "dataset.unreadable": closed_folder,
    "disk.full": full_disk,
    "disk.verify": bad_disk,
    "embedding.too_long": too_long,
    "history.failed": failing_history,
    "hypernetwork.model": sdxl,
    "hypernetwork.verify": unequal_network,
    "inspector.lost": lost_inspector,
    "inspector.start": no_inspector,
    "internal": fault_of_ours,
    "queue.full": full_queue,
    "queue.paused": paused_queue,
    "request.foreign": foreign,
    "request.key_reused": reused_key,
    "request.peer": stranger,
    "request.slow": slow,
    "request.too_large": too_large,
    "run.ambiguous": ambiguous,
    "run.name_taken": taken_name,
    "run.state": wrong_state,
    "service.busy": busy,
    "service.degraded": degraded,
    "service.stopping": stopping,
    "settings.invalid": bad_settings,
}
"""Codes that need a service, or a system, in a state of its own."""


@pytest.fixture
def stage(tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Stage:
    folder = tmp_path / "files"
    folder.mkdir()
    return Stage(folder, workspace, monkeypatch)


def check(code: str, answer: Answer) -> None:
    status, body = answer
    assert (body.get("error", body).get("code"), status) == (code, CODES[code][0]), body
    assert body.keys() == {"error"}
    assert body["error"].keys() - {"faults"} == {"code", "title", "hint"}
    assert body["error"]["title"].endswith((".", "?"))


def test_every_code_is_provoked_here() -> None:
    assert {*REQUESTS, *PROVOKE} == set(CODES)
    assert REQUESTS.keys() & PROVOKE.keys() == set()


async def test_codes_that_one_request_provokes(stage: Stage) -> None:
    put(stage.workspace.embeddings / "taken.safetensors", word_file())
    put(stage.workspace.hypernetworks / "taken.safetensors", network_file())
    async with stage.service() as (_, http):
        for code, request in REQUESTS.items():
            method, path, body = request(stage)
            check(code, await read(http.request(method, path, json=body)))


@pytest.mark.parametrize("code", PROVOKE)
async def test_codes_of_a_service_in_a_state_of_its_own(stage: Stage, code: str) -> None:
    check(code, await PROVOKE[code](stage))
