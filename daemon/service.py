"""The service behind the socket: its parts put together, and what the routes ask of it as a whole.

Made by the server, one for each process. Runs on the event loop; whatever reads folders or hashes models does so in
threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from daemon.events import Hub
from daemon.folders import Folders
from daemon.history import History
from daemon.inspector.inspector import Inspector
from daemon.jobs import Job
from daemon.keeper import MakeWorker, Message, WorkerProcess, backoff_s
from daemon.ledger import Ledger
from daemon.library import Library
from daemon.listings import list_datasets, list_templates
from daemon.paths import Workspace
from daemon.prompts import Prompts
from daemon.protocol.data import DatasetView, TemplateView
from daemon.protocol.jobs import CreateEmbedding, EvaluateRequest, GenerateRequest, JobView
from daemon.protocol.runs import RecipeCheck
from daemon.protocol.service import ModelView, ServerInfo, State
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
from daemon.queue import Queue
from daemon.recreate import recreate
from daemon.runs import Run
from daemon.settings import Settings
from daemon.targets import Targets
from daemon.wordfiles import check_absolute, convert_file, inspect_files, read_picture_text
from daemon.words import EMBEDDINGS
from daemon.worker.supervise import Limits, Worker, WorkerExit
from engine.errors import VocableError
from engine.models.catalog import find_model, list_models
from engine.names import name_fault
from engine.preflight import Resolved, check_recipe
from engine.recipe import Recipe, build_recipe
from engine.text import escape

_log = logging.getLogger(__name__)


class Service:
    """Everything but the socket.

    Args:
        socket: where clients find it, for messages.
        make_worker: makes the worker's supervisor; tests put a stand-in here.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        *,
        socket: Path,
        hub: Hub | None = None,
        make_worker: MakeWorker | None = None,
        backoff: Callable[[int], float] = backoff_s,
    ) -> None:
        self.workspace = workspace
        self.settings = settings
        self.socket = socket
        self.boot_id = hub.boot_id if hub else new_boot_id()
        self.hub = hub or Hub(self.boot_id)
        self.stop_asked = asyncio.Event()
        """Set when a client asked the service to stop."""
        self._models = _folders(workspace, workspace.models, settings.paths.models)
        self._datasets = _folders(workspace, workspace.datasets, settings.paths.datasets)
        self._templates = _folders(workspace, workspace.templates, settings.paths.templates)
        self._targets = Targets(self._models)
        self._fitting: asyncio.Task[None] | None = None
        self._inspector = Inspector()
        self.ledger = Ledger(History(workspace.database), self.hub)
        self.library = Library(
            EMBEDDINGS,
            folder=workspace.embeddings,
            cache=workspace.cache,
            inspector=self._inspector,
            on_change=self._words_changed,
        )
        self._prompts = Prompts(self.library, self._targets)
        self.queue = Queue(
            workspace,
            self.ledger,
            self.hub,
            make_worker or self._start_supervising,
            self._worker_settings(),
            words=self.library.usable,
            rescan=self.library.rescan,
            on_model=self._model_changed,
            idle_unload_s=settings.service.idle_unload_s,
            backoff=backoff,
        )
        self.folders = Folders(workspace, self.hub, self.ledger, lambda values, key: self.create_run(values, key=key))

    async def start(self) -> None:
        await self.library.start()
        self._fit_words()
        await self.queue.start()
        self.folders.start()

    async def stop(self, reason: str, *, timeout_s: float) -> None:
        """Checkpoint, save, say `bye`; afterwards nothing of the service is left but the socket."""
        await asyncio.gather(self.queue.stop(timeout_s=timeout_s), self.folders.stop())
        if self._fitting:
            self._fitting.cancel()
        await self.library.stop()
        await self._inspector.close()
        self.hub.close(reason)

    def apply_settings(self, settings: Settings) -> list[str]:
        """Take over settings that were read again; what only a restart can change stays as it is.

        Returns:
            What changed, and what will change with a restart, in words.
        """
        old, paths = self.settings, settings.paths
        self.settings = settings.model_copy(
            update={"service": settings.service.model_copy(update={"group": old.service.group})}
        )
        self._models[:] = _folders(self.workspace, self.workspace.models, paths.models)
        self._datasets[:] = _folders(self.workspace, self.workspace.datasets, paths.datasets)
        self._templates[:] = _folders(self.workspace, self.workspace.templates, paths.templates)
        self.queue.apply_settings(self._worker_settings(), idle_unload_s=settings.service.idle_unload_s)
        notes = [f"paths.{name} = {value}" for name, value in paths if value != getattr(old.paths, name)]
        changed = [(name, value) for name, value in settings.deadlines if value != getattr(old.deadlines, name)]
        notes += [f"deadlines.{name} = {value:g} for the next worker" for name, value in changed]
        if settings.service.idle_unload_s != old.service.idle_unload_s:
            notes.append(f"service.idle_unload_s = {settings.service.idle_unload_s:g}")
        if settings.service.group != old.service.group:
            notes.append("service.group changes with the next start")
        return notes

    def look_soon(self) -> None:
        """Look through all watched folders now: something may have changed there that nobody was told of."""
        self.library.look_soon()
        self.folders.look_soon()

    def info(self) -> ServerInfo:
        return ServerInfo(
            daemon=version("vocable"),
            boot_id=self.boot_id,
            pid=os.getpid(),
            workspace=str(self.workspace.root),
            socket=str(self.socket),
        )

    def state_json(self) -> bytes:
        """A State, everything at one event number: nothing here waits, so no event comes in between.

        The words come as the JSON that the library keeps: there may be ten thousand, and clients ask often.
        """
        state = State(
            boot_id=self.boot_id,
            seq=self.hub.seq,
            runs=self.ledger.runs.ordered(),
            words=[],
            worker=self.queue.keeper.view,
            queue=self.queue.view(),
            folders={"embeddings": self.library.health(), **self.folders.health()},
            problem=self.ledger.problem,
        )
        rest = state.model_dump_json(exclude={"words"}).encode()
        return rest[:-1] + b',"words":' + self.library.table.json + b"}"

    async def create_run(self, values: Mapping[str, Any], *, key: str) -> Run:
        """Check a recipe down to the disk and queue it.

        Raises:
            VocableError: RecipeError with all faults at once; else see Commands.create.
        """
        digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
        known = await self.queue.commands.find_request(key, digest)
        if known:
            return known
        recipe = build_recipe(values)
        await self._resolve(recipe)
        return await self.queue.commands.create(recipe, key=key, digest=digest)

    async def check_recipe(self, values: Mapping[str, Any]) -> RecipeCheck:
        """What a run of this recipe would use; nothing is queued. Raises RecipeError with all faults at once."""
        recipe = build_recipe(values)
        found = await self._resolve(recipe)
        other = self.ledger.runs.namesake(recipe.name)
        warnings = [
            f"{word['path']} is replaced when the run ends; a copy goes to trash/."
            for word in self.library.named(recipe.name)
        ]
        if other:
            warnings.append(f"Run {other.id} ({other.view.state}) trains '{escape(recipe.name)}' already.")
        return RecipeCheck(
            name=escape(recipe.name),
            model=escape(found.model.name),
            folder=escape(str(found.folder)),
            pictures=len(found.pictures),
            template=escape(str(found.template)),
            prompts=len(found.lines),
            steps=recipe.train.steps,
            warnings=warnings,
        )

    async def _resolve(self, recipe: Recipe) -> Resolved:
        folders = {"models": self._models, "datasets": self._datasets, "templates": self._templates}
        return await asyncio.to_thread(check_recipe, recipe, **folders)

    async def models(self) -> list[ModelView]:
        entries = await asyncio.to_thread(list_models, self._models)
        return [
            ModelView(**{**asdict(entry), "path": str(entry.path), "name": escape(entry.name)}) for entry in entries
        ]

    async def templates(self) -> list[TemplateView]:
        return await asyncio.to_thread(list_templates, self._templates)

    async def datasets(self) -> list[DatasetView]:
        return await asyncio.to_thread(list_datasets, self._datasets)

    async def generate(self, request: GenerateRequest) -> JobView:
        check_absolute("output", request.output)
        await self._check_model(request.model)
        return self._add_job("generate", request.model_dump(mode="json"))

    async def evaluate(self, request: EvaluateRequest) -> JobView:
        check_absolute("folder", request.folder)
        await self._check_model(request.model)
        return self._add_job("evaluate", request.model_dump(mode="json"))

    async def create_embedding(self, request: CreateEmbedding) -> JobView:
        """Have the worker make a word; what it replaces goes to trash/ when it is there.

        Raises:
            VocableError: `embedding.name`, `embedding.exists`, `model.*`.
        """
        fault = name_fault(request.name)
        if fault:
            raise VocableError("embedding.name", f"'{request.name}' {fault}.", "Choose another name.")
        await self._check_model(request.model)
        destination = self.workspace.embeddings / f"{request.name}.safetensors"
        known = [Path(word["path"]) for word in self.library.named(request.name)]
        others = [path for path in known if path != destination]
        is_there = await asyncio.to_thread(os.path.lexists, destination)
        if (known or is_there) and not request.overwrite:
            where = (known or [destination])[0]
            raise VocableError(
                "embedding.exists",
                f"There is a word '{request.name}' already: {where}.",
                "Choose another name, or ask for it to be replaced.",
            )
        return self._add_job("create", request.model_dump(mode="json"), destination=destination, replaces=tuple(others))

    async def inspect(self, request: InspectRequest) -> InspectReply:
        """Say what files hold; see inspect_files. Raises VocableError `model.*` for the model to compare with."""
        return await inspect_files(self._inspector, request, await self._targets.find(request.model))

    async def convert(self, request: ConvertRequest) -> ConvertReply:
        return await convert_file(self._inspector, request)

    async def count_tokens(self, request: TokensRequest) -> TokensReply:
        return await self._prompts.count(request, request.model)

    async def read_parameters(self, request: ParametersRequest) -> ParametersReply:
        """Make a request of what a picture says; see recreate."""
        path = Path(check_absolute("path", request.path))
        text = await read_picture_text(self._inspector, path)
        return await asyncio.to_thread(recreate, text, path, self._models, self.library.usable())

    def _add_job(
        self, kind: str, request: Message, *, destination: Path | None = None, replaces: tuple[Path, ...] = ()
    ) -> JobView:
        view = JobView.model_validate(
            {"id": secrets.token_hex(6), "kind": kind, "state": "queued", "created_at": time.time()}
        )
        message: Message = {"do": kind, "job": view.id, "request": request}
        if destination:
            message["destination"] = str(destination)
        job = Job(view, message, destination, replaces)
        self.queue.add_job(job)
        return job.view

    async def _check_model(self, reference: str) -> None:
        await asyncio.to_thread(find_model, reference, self._models)

    def _start_supervising(
        self, on_message: Callable[[Message], None], on_exit: Callable[[WorkerExit], None]
    ) -> WorkerProcess:
        limits = Limits(deadlines=self.settings.deadlines)
        return Worker(log=self.workspace.worker_log, on_message=on_message, on_exit=on_exit, limits=limits)

    def _worker_settings(self) -> Message:
        return {
            "models": [str(path) for path in self._models],
            "datasets": [str(path) for path in self._datasets],
            "templates": [str(path) for path in self._templates],
            "latents": str(self.workspace.latents),
        }

    def _words_changed(self) -> None:
        table = self.library.table
        self.hub.fact("words", {"count": len(table.views), "usable": table.usable})
        self.queue.reports.send_words()

    def _model_changed(self, message: Message) -> None:
        """Words are shown as usable or not for the model that was loaded last, before the first for the starter."""
        name, path = str(message["name"]), str(message.get("path") or message["name"])
        if name and self._targets.use(name, path):
            self._fit_words()

    def _fit_words(self) -> None:
        if self._fitting:
            self._fitting.cancel()
        self._fitting = asyncio.create_task(self._fit())

    async def _fit(self) -> None:
        try:
            self.library.fit(await self._targets.find(""))
        except VocableError as error:
            _log.warning("the words cannot be compared with the model: %s", error.title)


def new_boot_id() -> str:
    """Tells one life of the service from every other."""
    return secrets.token_hex(8)


def _folders(workspace: Workspace, own: Path, more: list[str]) -> list[Path]:
    return [own, *(workspace.root / Path(text).expanduser() for text in more)]
