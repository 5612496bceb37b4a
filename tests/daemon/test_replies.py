"""Every route of a real service answers with the status and the model that it declares, and nothing beside."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx2
from pydantic import BaseModel

from daemon.api.table import ENDPOINTS
from daemon.protocol.jobs import JobView
from daemon.protocol.runs import RunView
from daemon.protocol.service import QueueView, StreamLine, WorkerView
from engine.embedding.write import encode_safetensors
from tests.daemon.conftest import PATIENCE_S, Running, StandIn, open_http, recipe
from tests.daemon.networks import network_file
from tests.daemon.test_wordfiles import put, told_picture, word

TOPICS: dict[str, type[BaseModel]] = {
    "run": RunView,
    "progress": RunView,
    "job": JobView,
    "queue": QueueView,
    "worker": WorkerView,
}


def check_model(values: Any, model: type[BaseModel]) -> None:
    """Whatever the model does not know would be missing here, at any depth."""
    assert model.model_validate(values).model_dump(mode="json") == values


async def set_up(running: Running) -> tuple[str, str]:
    """A run that the worker has, of which all there is to tell was told, and one that waits."""
    put(running.workspace.embeddings / "fox.safetensors", encode_safetensors(word()))
    put(running.workspace.embeddings / "broken.pt", b"PK\3\4")
    put(running.workspace.hypernetworks / "ink.safetensors", network_file())
    put(running.workspace.hypernetworks / "broken.pt", b"PK\3\4")
    at_work, waiting = await running.train("first"), await running.train("second")
    worker = await running.crew.worker()
    told = await worker.told("train", run=at_work.id)
    put(Path(told["folder"]) / "log.txt", b"begun")
    await report(worker, at_work.id)
    await running.until(at_work.id, lambda view: view.preview_step and view.step == 3)
    async with asyncio.timeout(PATIENCE_S):
        while not any(network.usable for network in await running.client.hypernetworks()):
            pass
    return at_work.id, waiting.id


async def report(worker: StandIn, run: str) -> None:
    worker.tell(run, event="phase", phase="training", done=0, total=0)
    worker.tell(run, event="warned", code="picture.skipped", title="A picture was skipped.", hint="")
    worker.tell(run, event="preview", step=2, path="/somewhere/2.png", prompt="a fox", seed=1)
    worker.step(run, 1, 2, 3)


def requests(folder: Path, workspace: Any, at_work: str, waiting: str, job: str) -> dict[tuple[str, str], Any]:
    """For every route: what the path's parameter stands for, and the body."""
    model = {"model": "tiny"}
    source = put(folder / "source.safetensors", encode_safetensors(word()))
    caption = {"picture": "one.png", "text": "a face", "was": None}
    return {
        ("GET", "/v1/"): None,
        ("GET", "/v1/state"): None,
        ("POST", "/v1/recipes/check"): {"recipe": recipe(workspace, "third")},
        ("GET", "/v1/runs"): None,
        ("POST", "/v1/runs"): {"recipe": recipe(workspace, "third")},
        ("GET", "/v1/runs/{run}"): at_work,
        ("GET", "/v1/runs/{run}/losses"): at_work,
        ("POST", "/v1/runs/{run}/move"): (waiting, {"place": "last"}),
        ("POST", "/v1/runs/{run}/pause"): waiting,
        ("POST", "/v1/runs/{run}/resume"): waiting,
        ("POST", "/v1/runs/{run}/stop"): waiting,
        ("DELETE", "/v1/runs/{run}"): waiting,
        ("POST", "/v1/runs/{run}/restore"): waiting,
        ("GET", "/v1/runs/{run}/files"): at_work,
        ("GET", "/v1/queue"): None,
        ("POST", "/v1/queue/resume"): None,
        ("POST", "/v1/generate"): {"prompts": ["a fox"], "output": "/x.png", **model},
        ("POST", "/v1/evaluate"): {"phrases": ["a fox"], "folder": "/x", **model},
        ("POST", "/v1/preprocess"): {"source": "faces", "destination": "ready", "options": {"flip": True}},
        ("GET", "/v1/jobs/{job}"): job,
        ("POST", "/v1/jobs/{job}/cancel"): job,
        ("GET", "/v1/embeddings"): None,
        ("POST", "/v1/embeddings"): {"name": "owl", **model},
        ("GET", "/v1/hypernetworks"): None,
        ("POST", "/v1/hypernetworks"): {"name": "oil", **model},
        ("GET", "/v1/hypernetworks/{name}"): "ink",
        ("DELETE", "/v1/hypernetworks/{name}"): "ink",
        ("POST", "/v1/hypernetworks/{name}/restore"): "ink",
        ("POST", "/v1/hypernetworks/{name}/rename"): ("ink", {"name": "pen"}),
        ("GET", "/v1/embeddings/{name}"): "fox",
        ("DELETE", "/v1/embeddings/{name}"): "fox",
        ("POST", "/v1/embeddings/{name}/restore"): "fox",
        ("POST", "/v1/embeddings/{name}/rename"): ("fox", {"name": "red fox"}),
        ("POST", "/v1/inspect"): {"paths": [source, "/nothing"]},
        ("POST", "/v1/convert"): {"path": source, "format": "png", "output": str(folder / "out.png")},
        ("POST", "/v1/tokens"): {"prompt": "a fox, <embedding:nothing>"},
        ("POST", "/v1/parameters"): {"path": put(folder / "told.png", told_picture())},
        ("GET", "/v1/models"): None,
        ("GET", "/v1/settings"): None,
        ("PUT", "/v1/settings"): {"settings": {"service": {"idle_unload_s": 5}}},
        ("GET", "/v1/templates"): None,
        ("GET", "/v1/templates/{name}"): "style",
        ("GET", "/v1/datasets"): None,
        ("GET", "/v1/datasets/{name}"): "faces",
        ("PUT", "/v1/datasets/{name}/captions"): ("faces", {"changes": [caption]}),
        ("POST", "/v1/rescan"): None,
        ("POST", "/v1/shutdown"): None,
    }


async def test_every_reply_is_what_its_route_declares(running: Running, tmp_path: Path) -> None:
    endpoints = {(endpoint.method, endpoint.path): endpoint for endpoint in ENDPOINTS}
    stream = endpoints.pop(("GET", "/v1/events"))
    del endpoints["GET", "/v1/runs/{run}/files/{name:path}"]  # bytes; see test_runfiles.py
    del endpoints["GET", "/v1/datasets/{name}/files/{picture}"]  # bytes; see test_captions.py
    async with open_http(running) as http:
        await check_stream(running, http, stream.status)
        at_work, waiting = await set_up(running)
        job = await http.post("/v1/generate", json={"prompts": ["a"], "output": "/x.png", "model": "tiny"})
        asked = requests(tmp_path, running.workspace, at_work, waiting, job.json()["id"])
        assert asked.keys() == endpoints.keys()
        for key, value in asked.items():
            method, path = key
            named, body = value if isinstance(value, tuple) else (value, None) if "{" in path else ("", value)
            path = re.sub(r"\{\w+\}", str(named), path)
            headers = {"if-match": (await running.client.settings()).revision} if method == "PUT" else {}
            response = await http.request(method, path, json=body, headers=headers)
            assert (key, response.status_code) == (key, endpoints[key].status), response.text
            reply = endpoints[key].reply
            assert not isinstance(reply, str)
            check_model(response.json(), reply)


async def check_stream(running: Running, http: httpx2.AsyncClient, status: int) -> None:
    """Every topic that a short life brings up, in the lines of a stream."""
    seen: set[str] = set()
    async with http.stream("GET", "/v1/events") as response, asyncio.timeout(PATIENCE_S):
        assert (response.status_code, response.headers["content-type"]) == (status, "application/x-ndjson")
        lines = response.aiter_lines()
        assert StreamLine.model_validate_json(await anext(lines)).type == "hello"
        await http.post("/v1/generate", json={"prompts": ["a"], "output": "/x.png", "model": "tiny"})
        run, later = await running.train("zeroth"), await running.train("later")
        worker = await running.crew.worker()
        await worker.told("train", run=run.id)
        await report(worker, run.id)
        while not {"run", "progress", "job", "queue", "worker"} <= seen:
            values = json.loads(await anext(lines))
            assert values.keys() <= StreamLine.model_fields.keys()
            line = StreamLine.model_validate(values)
            if line.topic in TOPICS:
                check_model(line.data, TOPICS[line.topic])
            seen.add(line.topic)
        await running.client.command(later.id, "stop")
        await running.client.command(run.id, "stop")
        worker.tell(run.id, event="ended", outcome="stopped", step=3, embedding="")
        await running.until_state(run.id, "stopped")
