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
from importlib.metadata import version
from pathlib import Path
from typing import Any

from daemon.data import Data
from daemon.events import Hub
from daemon.folders import Folders
from daemon.history import History
from daemon.jobs import new_job
from daemon.keeper import MakeWorker, Message, WorkerProcess, backoff_s
from daemon.ledger import Ledger
from daemon.library import Library
from daemon.paths import Workspace
from daemon.preparation import COMMAND as PREPARER
from daemon.preparation import FOLDER as PREPARER_FOLDER
from daemon.preparation import Preparation, check_request
from daemon.protocol.hypernetworks import CreateHypernetwork
from daemon.protocol.jobs import CreateEmbedding, EvaluateRequest, GenerateRequest, JobView
from daemon.protocol.preprocess import PreprocessJob
from daemon.protocol.runs import RecipeCheck
from daemon.protocol.service import ServerInfo, State
from daemon.queue import Queue
from daemon.runs import Run
from daemon.settings import Settings
from daemon.shelves import Noun, Shelves
from daemon.wordfiles import check_absolute
from daemon.worker.supervise import Limits, Worker, WorkerExit
from engine.errors import VocableError
from engine.hypernetwork.family import check_family
from engine.preprocess.caption_files import CaptionModels
from engine.recipe import build_recipe
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
        self.reloading = asyncio.Lock()
        """Held from the reading of settings until they are applied, so that the newest are applied last."""
        self.data = Data(workspace, settings.paths, on_hash=lambda: self.shelves.fit())
        self.ledger = Ledger(History(workspace.database), self.hub)
        self.shelves = Shelves(workspace, self.data, self._shelf_changed)
        self.queue = Queue(
            workspace,
            self.ledger,
            self.hub,
            make_worker or self._start_supervising,
            self.data.for_worker(),
            known=self.shelves.usable,
            rescan=self.shelves.rescan,
            on_model=self.shelves.use_model,
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
        await self.shelves.start()
        await self.queue.start()
        self.preparation.start()
        self.folders.start()

    async def stop(self, reason: str, *, timeout_s: float) -> None:
        """Checkpoint, save, say `bye`; afterwards nothing of the service is left but the socket."""
        await asyncio.gather(self.queue.stop(timeout_s=timeout_s), self.preparation.stop(), self.folders.stop())
        await asyncio.gather(self.data.stop(), self.shelves.stop())
        self.hub.close(reason)

    async def apply_settings(self, settings: Settings) -> list[str]:
        """Take over settings that were read again; what only a restart can change stays as it is.

        Returns:
            What changed, and what will change with a restart, in words.
        """
        old, paths = self.settings, settings.paths
        self.settings = settings.model_copy(
            update={"service": settings.service.model_copy(update={"group": old.service.group})}
        )
        await self.data.use(paths)
        self.queue.apply_settings(self.data.for_worker(), idle_unload_s=settings.service.idle_unload_s)
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

    def folder_health(self) -> dict[str, dict[str, Any]]:
        """How each watched folder is watched; see FolderWatch.health."""
        return {**self.shelves.health(), **self.folders.health()}

    def look_soon(self) -> None:
        """Look through all watched folders now: something may have changed there that nobody was told of."""
        self.shelves.look_soon()
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
            folders=self.folder_health(),
            problem=self.ledger.problem,
        )
        rest = state.model_dump_json(exclude={"words", "hypernetworks"}).encode()
        words, hypernetworks = self.shelves.words.table.json, self.shelves.hypernetworks.table.json
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
        await self.data.resolve(recipe)
        return await self.queue.commands.create(recipe, key=key, digest=digest)

    async def check_recipe(self, values: Mapping[str, Any]) -> RecipeCheck:
        """What a run of this recipe would use; nothing is queued. Raises RecipeError with all faults at once."""
        recipe = build_recipe(values)
        found = await self.data.resolve(recipe)
        other = self.ledger.runs.namesake(recipe.kind, recipe.name)
        warnings = [
            f"{view['path']} is replaced when the run ends; a copy goes to trash/."
            for view in self.shelves.named(recipe.kind, recipe.name)
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

    async def generate(self, request: GenerateRequest) -> JobView:
        check_absolute("output", request.output)
        await self.data.find_model(request.model)
        return self._add_job("generate", request.model_dump(mode="json"))

    async def evaluate(self, request: EvaluateRequest) -> JobView:
        check_absolute("folder", request.folder)
        await self.data.find_model(request.model)
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
            await asyncio.to_thread(check_request, asked, self.data.dataset_folders, self._caption_models())
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
        await self.data.find_model(request.model)
        destination, others = await self.shelves.claim("embedding", request.name, overwrite=request.overwrite)
        self._check_free("embedding", destination, overwrite=request.overwrite)
        return self._add_job("create", request.model_dump(mode="json"), destination=destination, replaces=others)

    async def create_hypernetwork(self, request: CreateHypernetwork) -> JobView:
        """As `create_embedding`. Raises VocableError `hypernetwork.{name,exists,model}`, `model.*`."""
        check_family(await self.data.find_model(request.model))
        destination, others = await self.shelves.claim("hypernetwork", request.name, overwrite=request.overwrite)
        self._check_free("hypernetwork", destination, overwrite=request.overwrite)
        values = request.model_dump(mode="json")
        return self._add_job("create_hypernetwork", values, destination=destination, replaces=others)

    def _add_job(
        self, kind: str, request: Message, *, destination: Path | None = None, replaces: Sequence[Path] = ()
    ) -> JobView:
        job = new_job(kind, request, destination=destination, replaces=replaces)
        self.queue.add_job(job)
        return job.view

    def _check_free(self, noun: Noun, destination: Path, *, overwrite: bool) -> None:
        """Raises VocableError `NOUN.exists` when a job that has not ended makes the same file."""
        if not overwrite and any(job.destination == destination for job in self.queue.jobs.open()):
            title = f"Another job makes {escape(str(destination), 5000)} already."
            raise VocableError(f"{noun}.exists", title, "Choose another name, or ask for it to be replaced.")

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
            "datasets": [str(path) for path in self.data.dataset_folders],
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

    def _shelf_changed(self, topic: str, library: Library[Any]) -> None:
        self.hub.fact(topic, {"count": len(library.table.views), "usable": library.table.usable})
        self.queue.reports.send_words()


def digest_of(values: Mapping[str, Any]) -> str:
    """What tells one request from another under the same idempotency key."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def new_boot_id() -> str:
    """Tells one life of the service from every other."""
    return secrets.token_hex(8)
