"""The one client of the service, used by terminal program and command line; light to import.

Every failure is a `VocableError`: `link.absent` (nobody listens), `link.lost` (the service went away or is silent),
`link.version` (it speaks another language), or the service's own code. Every wait has a limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from daemon.paths import SOCKET_ENVIRONMENT, Workspace, find_socket
from daemon.protocol.data import (
    CaptionChange,
    CaptionsReply,
    ChangeCaptions,
    DatasetDetail,
    DatasetList,
    DatasetView,
    TemplateDetail,
    TemplateList,
    TemplateView,
)
from daemon.protocol.hypernetworks import CreateHypernetwork, HypernetworkList, HypernetworkView
from daemon.protocol.jobs import CreateEmbedding, EvaluateRequest, GenerateRequest, JobView
from daemon.protocol.preprocess import PreprocessJob
from daemon.protocol.runs import LossSeries, MoveRun, RecipeCheck, RunDetail, RunFile, RunFiles, RunList, RunView
from daemon.protocol.service import (
    API_VERSION,
    HEARTBEAT_S,
    FoldersView,
    ModelList,
    ModelView,
    QueueView,
    ServerInfo,
    State,
    StreamLine,
    WordList,
    WordView,
)
from daemon.protocol.settings import SettingsView
from daemon.protocol.states import RunCommand
from daemon.protocol.words import (
    ConvertReply,
    ConvertRequest,
    InspectReply,
    InspectRequest,
    ParametersReply,
    ParametersRequest,
    TokensReply,
    TokensRequest,
)
from engine.errors import Fault, RecipeError, VocableError
from engine.text import escape

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 30.0
"""A reply that takes longer means that the service hangs; long work answers at once with a job."""
CHECK_TIMEOUT_S = 180.0
"""The same where the service may have to read through a model of several gigabytes to know it, or to copy a run to
another disk."""

_PATIENT = httpx2.Timeout(CHECK_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)

Reply = TypeVar("Reply", bound=BaseModel)


class Shelf(Generic[Reply]):
    """What clients do with one file of a watched folder, by the name that prompts use. Raises `NOUN.unknown`."""

    def __init__(self, request: Callable[..., Awaitable[bytes]], path: str, view: type[Reply]) -> None:
        self._request = request
        self._path = path
        self._view = view

    async def show(self, name: str) -> Reply:
        return await self._ask("GET", name)

    async def delete(self, name: str) -> Reply:
        """Move it to trash/; `restore` takes it back."""
        return await self._ask("DELETE", name)

    async def restore(self, name: str) -> Reply:
        return await self._ask("POST", name, "/restore")

    async def rename(self, name: str, new: str) -> Reply:
        return await self._ask("POST", name, "/rename", {"name": new})

    async def _ask(self, method: str, name: str, act: str = "", body: Mapping[str, Any] | None = None) -> Reply:
        path = f"{self._path}/{quote(name, safe='')}{act}"
        return _read_reply(await self._request(method, path, body=body, limits=_PATIENT), self._view)


class Client:
    """A connection to one service; `async with` closes it. May be used by several tasks at once."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        timeout = httpx2.Timeout(REPLY_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        transport = httpx2.AsyncHTTPTransport(uds=str(socket))
        self._http = httpx2.AsyncClient(transport=transport, base_url="http://vocable", timeout=timeout)
        self.word_files = Shelf(self._request, "/v1/embeddings", WordView)
        self.hypernetwork_files = Shelf(self._request, "/v1/hypernetworks", HypernetworkView)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def info(self) -> ServerInfo:
        """Who answers. Raises `link.version` when it speaks another version of the protocol."""
        info = await self._get("/v1/", ServerInfo)
        if info.api != API_VERSION:
            raise _other_version(f"version {info.api} of the protocol, this program version {API_VERSION}")
        return info

    async def state(self) -> State:
        """Everything a screen shows; follow with `events(f"{state.boot_id}:{state.seq}")`."""
        return await self._get("/v1/state", State)

    async def rescan(self) -> dict[str, Any]:
        """Have all watched folders looked through now; how they were watched before."""
        return (await self._post("/v1/rescan", FoldersView)).folders

    async def create_run(self, recipe: Mapping[str, Any], key: str | None = None) -> RunView:
        """Queue a run. With the same `key` a request may be repeated after a lost link: it makes one run."""
        headers = {"idempotency-key": key} if key else {}
        return await self._check("/v1/runs", RunView, {"recipe": dict(recipe)}, headers=headers)

    async def check_recipe(self, recipe: Mapping[str, Any]) -> RecipeCheck:
        """What a run of this recipe would use; nothing is started. Raises RecipeError with every fault."""
        return await self._check("/v1/recipes/check", RecipeCheck, {"recipe": dict(recipe)})

    async def runs(self) -> list[RunView]:
        return (await self._get("/v1/runs", RunList)).runs

    async def run(self, run: str) -> RunDetail:
        """One run by id, unique beginning of an id, or name (then the newest of that name)."""
        return await self._get(f"/v1/runs/{quote(run, safe='')}", RunDetail)

    async def command(self, run: str, command: RunCommand) -> RunView:
        return await self._post(f"/v1/runs/{quote(run, safe='')}/{command}", RunView)

    async def move(self, run: str, request: MoveRun) -> RunView:
        """Put a queued run elsewhere in the queue."""
        body = request.model_dump(mode="json", exclude_none=True)
        return await self._check(f"/v1/runs/{quote(run, safe='')}/move", RunView, body)

    async def delete_run(self, run: str) -> RunView:
        """Move a run that ended to trash/, where `folder` then is; `restore_run` takes it back."""
        path = f"/v1/runs/{quote(run, safe='')}"
        return _read_reply(await self._request("DELETE", path, limits=_PATIENT), RunView)

    async def restore_run(self, run: str) -> RunView:
        path = f"/v1/runs/{quote(run, safe='')}/restore"
        return _read_reply(await self._request("POST", path, limits=_PATIENT), RunView)

    async def queue(self) -> QueueView:
        return await self._get("/v1/queue", QueueView)

    async def resume_queue(self) -> QueueView:
        """Let a queue go on that was paused after too many lost workers."""
        return await self._post("/v1/queue/resume", QueueView)

    async def losses(self, run: str, points: int = 200) -> LossSeries:
        return await self._get(f"/v1/runs/{quote(run, safe='')}/losses?points={points}", LossSeries)

    async def run_files(self, run: str) -> list[RunFile]:
        """The files of a run that `read_run_file` can fetch, oldest first."""
        return (await self._get(f"/v1/runs/{quote(run, safe='')}/files", RunFiles)).files

    async def read_run_file(self, run: str, name: str) -> bytes:
        """The content of one file of a run; whole in memory, so mind its size."""
        return await self._request("GET", f"/v1/runs/{quote(run, safe='')}/files/{quote(name)}")

    async def generate(self, request: GenerateRequest) -> JobView:
        return await self._check("/v1/generate", JobView, request.model_dump(mode="json"))

    async def evaluate(self, request: EvaluateRequest) -> JobView:
        return await self._check("/v1/evaluate", JobView, request.model_dump(mode="json"))

    async def preprocess(self, request: PreprocessJob, key: str | None = None) -> JobView:
        """Have a folder of pictures prepared; the same `key` gives the same job."""
        headers = {"idempotency-key": key} if key else {}
        return await self._check("/v1/preprocess", JobView, request.model_dump(mode="json"), headers=headers)

    async def create_embedding(self, request: CreateEmbedding) -> JobView:
        return await self._check("/v1/embeddings", JobView, request.model_dump(mode="json"))

    async def job(self, job: str, wait_s: float = 20) -> JobView:
        """The job's view, as soon as it ended, at the latest after `wait_s` seconds (0 answers at once)."""
        limits = httpx2.Timeout(REPLY_TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S)
        return await self._get(f"/v1/jobs/{quote(job, safe='')}?wait={wait_s:g}", JobView, limits=limits)

    async def cancel_job(self, job: str) -> JobView:
        return await self._post(f"/v1/jobs/{quote(job, safe='')}/cancel", JobView)

    async def words(self) -> list[WordView]:
        return (await self._get("/v1/embeddings", WordList)).words

    async def hypernetworks(self) -> list[HypernetworkView]:
        return (await self._get("/v1/hypernetworks", HypernetworkList)).hypernetworks

    async def create_hypernetwork(self, request: CreateHypernetwork) -> JobView:
        return await self._check("/v1/hypernetworks", JobView, request.model_dump(mode="json"))

    async def inspect(self, request: InspectRequest) -> InspectReply:
        """What files of embeddings hold, and whether a model takes it."""
        return await self._check("/v1/inspect", InspectReply, request.model_dump(mode="json"))

    async def convert(self, request: ConvertRequest) -> ConvertReply:
        """Write a word in another format; answers when the file is there."""
        return await self._check("/v1/convert", ConvertReply, request.model_dump(mode="json"))

    async def tokens(self, request: TokensRequest) -> TokensReply:
        """What a prompt takes, and which words are found in it."""
        return await self._check("/v1/tokens", TokensReply, request.model_dump(mode="json"))

    async def parameters(self, request: ParametersRequest) -> ParametersReply:
        """How a picture was made, and the request that makes it again."""
        return await self._check("/v1/parameters", ParametersReply, request.model_dump(mode="json"))

    async def settings(self) -> SettingsView:
        return await self._get("/v1/settings", SettingsView)

    async def change_settings(self, settings: Mapping[str, Any], revision: str) -> SettingsView:
        """Write other settings over those of `revision`. Raises `settings.stale` when they changed meanwhile."""
        content = await self._request(
            "PUT", "/v1/settings", body={"settings": dict(settings)}, headers={"if-match": revision}
        )
        return _read_reply(content, SettingsView)

    async def templates(self) -> list[TemplateView]:
        return (await self._get("/v1/templates", TemplateList)).templates

    async def datasets(self) -> list[DatasetView]:
        return (await self._get("/v1/datasets", DatasetList)).datasets

    async def template(self, name: str) -> TemplateDetail:
        return await self._get(f"/v1/templates/{quote(name, safe='')}", TemplateDetail)

    async def dataset(self, name: str) -> DatasetDetail:
        return await self._get(f"/v1/datasets/{quote(name, safe='')}", DatasetDetail)

    async def read_picture(self, dataset: str, picture: str) -> bytes:
        """The content of one picture of a dataset; whole in memory, so mind its size."""
        return await self._request("GET", f"/v1/datasets/{quote(dataset, safe='')}/files/{quote(picture, safe='')}")

    async def change_captions(self, dataset: str, changes: Sequence[CaptionChange]) -> CaptionsReply:
        """Write captions; `undo` of the reply takes them back. Raises `caption.changed` when one is another by now."""
        path = f"/v1/datasets/{quote(dataset, safe='')}/captions"
        body = ChangeCaptions(changes=list(changes)).model_dump(mode="json")
        return _read_reply(await self._request("PUT", path, body=body, limits=_PATIENT), CaptionsReply)

    async def models(self) -> list[ModelView]:
        limits = httpx2.Timeout(CHECK_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        return (await self._get("/v1/models", ModelList, limits=limits)).models

    async def shutdown(self) -> None:
        """Ask the service to stop; it checkpoints the current run first. Answers before it is gone."""
        await self._request("POST", "/v1/shutdown")

    async def events(self, after: str | None = None) -> AsyncIterator[StreamLine]:
        """Yield the lines of the event stream; it ends after `lagged` or `bye`.

        Raises:
            VocableError: `link.lost` when the stream breaks or is silent for three heartbeats.
        """
        timeout = httpx2.Timeout(3 * HEARTBEAT_S, connect=CONNECT_TIMEOUT_S)
        query = f"?after={quote(after, safe=':')}" if after else ""
        try:
            async with self._http.stream("GET", f"/v1/events{query}", timeout=timeout) as response:
                if response.status_code != 200:
                    raise _service_error(response.status_code, await response.aread())
                async for text in response.aiter_lines():
                    line = _read_line(text)
                    if line is None:
                        continue
                    yield line
                    if line.type in ("lagged", "bye"):
                        return
        except httpx2.TransportError as error:
            raise self._link_error(error) from None
        raise _lost("The service closed the event stream")

    async def _get(self, path: str, reply: type[Reply], *, limits: httpx2.Timeout | None = None) -> Reply:
        return _read_reply(await self._request("GET", path, limits=limits), reply)

    async def _post(self, path: str, reply: type[Reply]) -> Reply:
        return _read_reply(await self._request("POST", path), reply)

    async def _check(
        self, path: str, reply: type[Reply], body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Post something that the service looks into before it answers."""
        return _read_reply(await self._request("POST", path, body=body, headers=headers, limits=_PATIENT), reply)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        limits: httpx2.Timeout | None = None,
    ) -> bytes:
        timeout = limits or httpx2.USE_CLIENT_DEFAULT
        try:
            response = await self._http.request(method, path, json=body, headers=headers, timeout=timeout)
        except httpx2.TransportError as error:
            raise self._link_error(error) from None
        except UnicodeEncodeError as error:
            raise _no_text(error) from None
        if response.is_success:
            return response.content
        raise _service_error(response.status_code, response.content)

    def _link_error(self, error: httpx2.TransportError) -> VocableError:
        if isinstance(error, httpx2.ConnectError):
            return VocableError(
                "link.absent", f"No service listens on {self.socket}.", "Start it with: vocable daemon start"
            )
        if isinstance(error, httpx2.TimeoutException):
            return _lost("The service does not answer")
        return _lost("The connection to the service broke off")


def socket_for(workspace: Workspace) -> Path:
    """The socket of the workspace's service, whether it runs or not."""
    return find_socket(workspace, os.environ)


async def ensure_daemon(workspace: Workspace, timeout_s: float = 30.0) -> Client:
    """A client of the workspace's service, which is started in the background when none answers.

    Raises:
        VocableError: `daemon.failed` with the service's own words, `link.version`, or `link.lost` when it hangs.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        client = Client(socket_for(workspace))
        try:
            await client.info()
            return client
        except VocableError as error:
            await client.close()
            is_final = error.code == "link.version" or SOCKET_ENVIRONMENT in os.environ
            if is_final or asyncio.get_running_loop().time() > deadline:
                raise
        code, message = await _start_daemon(workspace, timeout_s)
        if code == EXIT_RUNNING:
            # Another client is starting one, or one is about to stop; either is settled in a moment.
            await asyncio.sleep(0.1)
        elif code != 0:
            raise VocableError(
                "daemon.failed", message or f"The service ended with code {code}.", f"See {workspace.daemon_log}."
            )


EXIT_RUNNING = 75
"""Exit code of `vocabled` when another one owns the workspace (EX_TEMPFAIL)."""
EXIT_CONFIG = 78
"""Exit code of `vocabled` when settings or workspace are unusable (EX_CONFIG)."""


async def _start_daemon(workspace: Workspace, timeout_s: float) -> tuple[int, str]:
    """Run `vocabled --detach`, which returns as soon as the service answers, or with its exit code and message."""
    # -P: a folder named like one of our packages in the current directory must not be imported instead.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "daemon", "--workspace", str(workspace.root), "--detach"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise VocableError(
            "daemon.failed", f"The service did not start within {timeout_s:g} s.", f"See {workspace.daemon_log}."
        ) from None
    return process.returncode or 0, errors.decode(errors="replace").strip().removeprefix("vocabled: ")


def _read_reply(content: bytes, reply: type[Reply]) -> Reply:
    try:
        return reply.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        raise _other_version(f"{'.'.join(map(str, fault['loc'])) or 'its reply'}: {fault['msg']}") from None


def _read_line(text: str) -> StreamLine | None:
    """A line of the stream, or None for one that a newer service invented."""
    try:
        return StreamLine.model_validate_json(text)
    except ValidationError:
        return None


def _service_error(status: int, content: bytes) -> VocableError:
    try:
        error = json.loads(content)["error"]
        code, title, hint = str(error["code"]), str(error["title"]), str(error.get("hint", ""))
        faults = [Fault(str(fault["path"]), str(fault["message"])) for fault in error.get("faults", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return _other_version(f"its reply with status {status} holds no error")
    if code == "recipe.invalid" and faults:
        return RecipeError(faults)
    return VocableError(code, title, hint)


def _no_text(error: UnicodeEncodeError) -> VocableError:
    """File names may be any bytes; what is sent is text."""
    start = error.object.rfind('"', 0, error.start) + 1
    shown = escape(error.object[start : error.end + 40].partition('"')[0], 200)
    title = f"The name '{shown}' is not text in UTF-8, so it cannot be sent."
    return VocableError("request.invalid", title, "Rename the file or folder and try again.")


def _lost(what: str) -> VocableError:
    return VocableError("link.lost", f"{what}.", "Runs go on; try again, or see: vocable daemon status")


def _other_version(what: str) -> VocableError:
    return VocableError(
        "link.version",
        f"The running service does not fit this program ({what}).",
        "Restart it: vocable daemon stop, then vocable daemon start",
    )
