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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from daemon.captions import change_captions, show_dataset
from daemon.events import Hub
from daemon.folders import Folders
from daemon.hashing import Hashing
from daemon.history import History
from daemon.hypernetworks import HYPERNETWORKS
from daemon.inspector.inspector import Inspector
from daemon.jobs import new_job
from daemon.keeper import MakeWorker, Message, WorkerProcess, backoff_s
from daemon.layouts import all_folders
from daemon.ledger import Ledger
from daemon.library import Library
from daemon.listings import list_datasets, list_templates, show_template
from daemon.paths import Workspace
from daemon.preparation import COMMAND as PREPARER
from daemon.preparation import FOLDER as PREPARER_FOLDER
from daemon.preparation import Preparation, check_request
from daemon.prompts import Prompts
from daemon.protocol.data import CaptionChange, CaptionsReply, DatasetDetail, DatasetView, TemplateDetail, TemplateView
from daemon.protocol.hypernetworks import CreateHypernetwork, HypernetworkView
from daemon.protocol.jobs import CreateEmbedding, EvaluateRequest, GenerateRequest, JobView
from daemon.protocol.preprocess import PreprocessJob
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
from daemon.results import Results, claim, delete, restore
from daemon.runs import Run
from daemon.settings import Settings
from daemon.targets import Targets
from daemon.wordfiles import check_absolute, convert_file, inspect_files, read_picture_text
from daemon.words import EMBEDDINGS
from daemon.worker.supervise import Limits, Worker, WorkerExit
from engine.errors import VocableError
from engine.hypernetwork.family import check_family
from engine.models.catalog import ModelEntry, find_model, list_models
from engine.preflight import Resolved, check_recipe
from engine.preprocess.caption_files import CaptionModels
from engine.recipe import Recipe, build_recipe
from engine.text import escape

_log = logging.getLogger(__name__)


class Service:
    """Everything but the socket.

    Args:
        socket: where clients find it, for messages.
        make_worker, make_preparer: make the supervisors of worker and preparer; tests put stand-ins here.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        *,
        socket: Path,
        hub: Hub | None = None,
        make_worker: MakeWorker | None = None,
        make_preparer: MakeWorker | None = None,
        backoff: Callable[[int], float] = backoff_s,
    ) -> None:
        self.workspace = workspace
        self.settings = settings
        self.socket = socket
        self.boot_id = hub.boot_id if hub else new_boot_id()
        self.hub = hub or Hub(self.boot_id)
        self.stop_asked = asyncio.Event()
        """Set when a client asked the service to stop."""
        self._models = all_folders(workspace.root, workspace.models, "models", settings.paths.models)
        self._datasets = all_folders(workspace.root, workspace.datasets, "datasets", settings.paths.datasets)
        self._templates = all_folders(workspace.root, workspace.templates, "templates", settings.paths.templates)
        self._captions = asyncio.Lock()
        self._targets = Targets(self._models, workspace.cache)
        self._hashing = Hashing(workspace.cache, on_hash=self._fit_words)
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
        self.hypernetworks = Library(
            HYPERNETWORKS,
            folder=workspace.hypernetworks,
            cache=workspace.cache,
            inspector=self._inspector,
            on_change=self._hypernetworks_changed,
        )
        self._results = {
            noun: Results(noun, library, folder, workspace.trash_for(folder))
            for noun, library, folder in (
                ("embedding", self.library, workspace.embeddings),
                ("hypernetwork", self.hypernetworks, workspace.hypernetworks),
            )
        }
        self._prompts = Prompts(self.library, self.hypernetworks, self._targets)
        self.queue = Queue(
            workspace,
            self.ledger,
            self.hub,
            make_worker or self._start_supervising,
            self._worker_settings(),
            known=lambda: {"words": self.library.usable(), "hypernetworks": self.hypernetworks.usable()},
            rescan=self._rescan,
            on_model=self._model_changed,
            idle_unload_s=settings.service.idle_unload_s,
            backoff=backoff,
        )
        self.preparation = Preparation(
            self.queue.jobs,
            make_preparer or self._start_preparer,
            settings=self._preparer_settings,
            device=self._caption_device,
            folder=workspace.state / PREPARER_FOLDER,
        )
        self.folders = Folders(workspace, self.hub, self.ledger, lambda values, key: self.create_run(values, key=key))

    async def start(self) -> None:
        await asyncio.gather(self.library.start(), self.hypernetworks.start())
        self._fit_words()
        await self.queue.start()
        self.preparation.start()
        self.folders.start()

    async def stop(self, reason: str, *, timeout_s: float) -> None:
        """Checkpoint, save, say `bye`; afterwards nothing of the service is left but the socket."""
        await asyncio.gather(self.queue.stop(timeout_s=timeout_s), self.preparation.stop(), self.folders.stop())
        await self._hashing.stop()
        if self._fitting:
            self._fitting.cancel()
        await asyncio.gather(self.library.stop(), self.hypernetworks.stop())
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
        self._models[:] = all_folders(self.workspace.root, self.workspace.models, "models", paths.models)
        self._datasets[:] = all_folders(self.workspace.root, self.workspace.datasets, "datasets", paths.datasets)
        self._templates[:] = all_folders(self.workspace.root, self.workspace.templates, "templates", paths.templates)
        self.queue.apply_settings(self._worker_settings(), idle_unload_s=settings.service.idle_unload_s)
        changed_paths = [(name, value) for name, value in paths if value != getattr(old.paths, name)]
        notes = [f"paths.{name} = {value}" for name, value in changed_paths if name != "runs"]
        notes += ["paths.runs changes with the next start" for name, _ in changed_paths if name == "runs"]
        changes = [(name, value) for name, value in settings.preprocess if value != getattr(old.preprocess, name)]
        notes += [f"preprocess.{name} = {value} for the next job" for name, value in changes]
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

        Words and hypernetworks come as the JSON that the libraries keep: there may be ten thousand, and clients ask
        often.
        """
        state = State(
            boot_id=self.boot_id,
            seq=self.hub.seq,
            runs=self.ledger.runs.ordered(),
            words=[],
            worker=self.queue.keeper.view,
            queue=self.queue.view(),
            folders={
                "embeddings": self.library.health(),
                "hypernetworks": self.hypernetworks.health(),
                **self.folders.health(),
            },
            problem=self.ledger.problem,
        )
        rest = state.model_dump_json(exclude={"words", "hypernetworks"}).encode()
        words, hypernetworks = self.library.table.json, self.hypernetworks.table.json
        return rest[:-1] + b',"words":' + words + b',"hypernetworks":' + hypernetworks + b"}"

    async def create_run(self, values: Mapping[str, Any], *, key: str) -> Run:
        """Check a recipe down to the disk and queue it.

        Raises:
            VocableError: RecipeError with all faults at once; else see Commands.create.
        """
        digest = digest_of(values)
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
        other = self.ledger.runs.namesake(recipe.kind, recipe.name)
        warnings = [
            f"{view['path']} is replaced when the run ends; a copy goes to trash/."
            for view in self._results[recipe.kind].library.named(recipe.name)
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
        return await asyncio.to_thread(
            check_recipe,
            recipe,
            models=self._models,
            datasets=self._datasets,
            templates=self._templates,
            cache=self.workspace.cache,
            wait=False,
        )

    async def models(self) -> list[ModelView]:
        cache = self.workspace.cache
        entries = await asyncio.to_thread(lambda: list_models(self._models, cache=cache, wait=False))
        self._hashing.take(entry.path for entry in entries if not entry.hash)
        return [
            ModelView(**{**asdict(entry), "path": str(entry.path), "name": escape(entry.name)}) for entry in entries
        ]

    async def templates(self) -> list[TemplateView]:
        return await asyncio.to_thread(list_templates, self._templates)

    async def datasets(self) -> list[DatasetView]:
        return await asyncio.to_thread(list_datasets, self._datasets)

    async def template(self, name: str) -> TemplateDetail:
        """Raises VocableError `template.unknown`."""
        return await asyncio.to_thread(show_template, name, self._templates)

    @property
    def dataset_folders(self) -> Sequence[Path]:
        return tuple(self._datasets)

    async def dataset(self, name: str) -> DatasetDetail:
        """Raises VocableError `dataset.missing` or `dataset.unreadable`."""
        return await asyncio.to_thread(show_dataset, name, self.dataset_folders)

    async def change_captions(self, name: str, changes: Sequence[CaptionChange]) -> CaptionsReply:
        """Change captions, one client after the other; see daemon.captions for what it raises."""
        async with self._captions:
            return await asyncio.to_thread(change_captions, name, changes, self.dataset_folders)

    async def generate(self, request: GenerateRequest) -> JobView:
        check_absolute("output", request.output)
        await self._check_model(request.model)
        return self._add_job("generate", request.model_dump(mode="json"))

    async def evaluate(self, request: EvaluateRequest) -> JobView:
        check_absolute("folder", request.folder)
        await self._check_model(request.model)
        return self._add_job("evaluate", request.model_dump(mode="json"))

    async def preprocess(self, asked: PreprocessJob, *, key: str) -> JobView:
        """Have a folder prepared, once folders and captioning model are known to be there; the same key and request
        give the same job.

        Raises:
            VocableError: see find_folders and identify_captioner; `request.key_reused`, `queue.full`.
        """
        self.queue.commands.check_open()
        values = asked.model_dump(mode="json")
        digest = digest_of(values)
        if self.queue.jobs.find_request(key, digest) is None:
            await asyncio.to_thread(check_request, asked, self.dataset_folders, self._caption_models())
        known = self.queue.jobs.find_request(key, digest)
        if known:
            return known.view
        job = new_job("preprocess", values, apart=True)
        self.preparation.add(job)
        self.queue.jobs.note_request(key, digest, job)
        return job.view

    def cancel_job(self, identifier: str) -> JobView:
        """End a job, whoever does it; one that ended stays as it is. Raises VocableError `job.unknown`."""
        job = self.queue.jobs.get(identifier)
        return self.preparation.cancel(job) if job.apart else self.queue.cancel_job(job)

    async def create_embedding(self, request: CreateEmbedding) -> JobView:
        """Have the worker make a word; what it replaces goes to trash/ when it is there.

        Raises:
            VocableError: `embedding.name`, `embedding.exists`, `model.*`.
        """
        await self._check_model(request.model)
        destination, others = await claim(self._results["embedding"], request.name, overwrite=request.overwrite)
        return self._add_job("create", request.model_dump(mode="json"), destination=destination, replaces=others)

    async def create_hypernetwork(self, request: CreateHypernetwork) -> JobView:
        """As `create_embedding`. Raises VocableError `hypernetwork.{name,exists,model}`, `model.*`."""
        await asyncio.to_thread(lambda: check_family(self._find_model(request.model)))
        destination, others = await claim(self._results["hypernetwork"], request.name, overwrite=request.overwrite)
        values = request.model_dump(mode="json")
        return self._add_job("create_hypernetwork", values, destination=destination, replaces=others)

    def hypernetwork(self, name: str) -> HypernetworkView:
        """The one that has a name, or the first that claims it in vain. Raises VocableError `hypernetwork.unknown`."""
        known = self.hypernetworks.named(name)
        if not known:
            title = f"There is no hypernetwork '{escape(name, 100)}'."
            raise VocableError("hypernetwork.unknown", title, "List them with: vocable hypernet list")
        return HypernetworkView(**next((view for view in known if view["usable"]), known[0]))

    async def delete_hypernetwork(self, name: str) -> HypernetworkView:
        """Move one to trash/; it is told as it was. Raises VocableError `hypernetwork.unknown`, `disk.*`."""
        view = self.hypernetwork(name)
        await delete(self._results["hypernetwork"], name)
        return view

    async def restore_hypernetwork(self, name: str) -> HypernetworkView:
        """Take one back out of trash/. Raises VocableError `file.absent`, `hypernetwork.exists`, `disk.*`."""
        await restore(self._results["hypernetwork"], name)
        return self.hypernetwork(name)

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
        self, kind: str, request: Message, *, destination: Path | None = None, replaces: Sequence[Path] = ()
    ) -> JobView:
        job = new_job(kind, request, destination=destination, replaces=replaces)
        self.queue.add_job(job)
        return job.view

    async def _check_model(self, reference: str) -> None:
        await asyncio.to_thread(self._find_model, reference)

    def _find_model(self, reference: str) -> ModelEntry:
        return find_model(reference, self._models, cache=self.workspace.cache, wait=False)

    def _start_supervising(
        self, on_message: Callable[[Message], None], on_exit: Callable[[WorkerExit], None]
    ) -> WorkerProcess:
        limits = Limits(deadlines=self.settings.deadlines)
        return Worker(log=self.workspace.worker_log, on_message=on_message, on_exit=on_exit, limits=limits)

    def _start_preparer(
        self, on_message: Callable[[Message], None], on_exit: Callable[[WorkerExit], None]
    ) -> WorkerProcess:
        log = self.workspace.state / PREPARER_FOLDER / self.workspace.worker_log.name
        limits = Limits(self.settings.deadlines)
        return Worker(log=log, on_message=on_message, on_exit=on_exit, limits=limits, command=PREPARER)

    def _preparer_settings(self) -> Message:
        models = self._caption_models()
        return {
            "datasets": [str(path) for path in self._datasets],
            "blip": str(models.blip),
            "tagger": str(models.tagger),
            "processes": self.settings.preprocess.processes,
        }

    def _caption_models(self) -> CaptionModels:
        paths = self.settings.preprocess
        blip, tagger = (self.workspace.root / Path(text).expanduser() for text in (paths.blip, paths.tagger))
        return CaptionModels(blip, tagger)

    def _caption_device(self) -> str:
        """A run that trains has its device for itself."""
        return "cpu" if self.queue.is_training else self.settings.preprocess.device

    def _worker_settings(self) -> Message:
        return {
            "models": [str(path) for path in self._models],
            "datasets": [str(path) for path in self._datasets],
            "templates": [str(path) for path in self._templates],
            "latents": str(self.workspace.latents),
            "cache": str(self.workspace.cache),
        }

    def _words_changed(self) -> None:
        table = self.library.table
        self.hub.fact("words", {"count": len(table.views), "usable": table.usable})
        self.queue.reports.send_words()

    def _hypernetworks_changed(self) -> None:
        table = self.hypernetworks.table
        self.hub.fact("hypernetworks", {"count": len(table.views), "usable": table.usable})
        self.queue.reports.send_words()

    async def _rescan(self) -> None:
        await asyncio.gather(self.library.rescan(), self.hypernetworks.rescan())

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
            target = await self._targets.find("")
            self.library.fit(target)
            self.hypernetworks.fit(target)
        except VocableError as error:
            _log.warning("words and hypernetworks cannot be compared with the model: %s", error.title)


def digest_of(values: Mapping[str, Any]) -> str:
    """What tells one request from another under the same idempotency key."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def new_boot_id() -> str:
    """Tells one life of the service from every other."""
    return secrets.token_hex(8)
