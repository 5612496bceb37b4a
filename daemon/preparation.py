"""Jobs that prepare pictures: one after the other, each in a process of its own, beside whatever the worker does.

Part of the service. The invariant: a job is taken again when its process is lost, once, and goes on where that one
was; a cancelled one has ended within a second, at the latest by a kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from daemon.jobs import Job, Jobs
from daemon.keeper import KILL_TIMEOUT_S, MakeWorker, Message, WorkerProcess
from daemon.protocol.jobs import JobView
from daemon.protocol.runs import ErrorInfo
from daemon.runs import describe_error, read_error
from daemon.worker.footprint import NAME as FOOTPRINT
from daemon.worker.footprint import clear_away
from daemon.worker.supervise import WorkerExit
from engine.errors import VocableError
from engine.preprocess.caption_files import CaptionModels, identify_captioner
from engine.preprocess.folders import find_folders
from engine.preprocess.request import PreprocessRequest

COMMAND = (sys.executable, "-P", "-m", "daemon.worker.preparer")
"""What runs in such a process."""

FOLDER = "preprocess"
"""Folder in `state/` for what such processes leave: their log, and reports of crashes."""

CANCEL_S = 0.6
"""A process has to leave a cancelled job by itself; then it is killed, which harms nothing that it wrote."""

LEAVE_S = 2.0
"""A process has to end when its job is done."""

_log = logging.getLogger(__name__)


class Preparation:
    """The jobs that prepare pictures, and the process of the one that is at work.

    Args:
        jobs: all jobs of the service.
        make_process: makes the process's supervisor.
        settings: the process's first message, asked for each time.
        device: where captions may be made now: `cpu`, or `auto` while nobody else uses a GPU.
        folder: takes the process's log, and a note of it while it lives.
    """

    def __init__(
        self,
        jobs: Jobs,
        make_process: MakeWorker,
        *,
        settings: Callable[[], Message],
        device: Callable[[], str],
        folder: Path,
    ) -> None:
        self._jobs = jobs
        self._make_process = make_process
        self._settings = settings
        self._device = device
        self._folder = folder
        self._process: WorkerProcess | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End the process, and with it every job; what it wrote stays, and the next job goes on from there."""
        self._is_stopping = True
        process = self._process
        if process is not None:
            process.kill()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if process is not None:
            with contextlib.suppress(TimeoutError):  # it hangs inside the kernel
                await asyncio.wait_for(process.stop(timeout_s=LEAVE_S), LEAVE_S)
        ended = ErrorInfo(code="service.stopping", title="The service stopped first.", hint="Ask again; it goes on.")
        for job in list(self._jobs.open_apart()):
            self._jobs.end(job, "failed", ended)

    def add(self, job: Job) -> None:
        """Take a job. Raises VocableError `queue.full` or `service.stopping`."""
        if self._is_stopping:
            raise VocableError("service.stopping", "The service is stopping.", "Start it again and repeat this.")
        self._jobs.add(job)
        self._news.set()

    def cancel(self, job: Job) -> JobView:
        """End a job, in a second at the latest when it is at work. A job that ended stays as it is."""
        if not job.sent:
            self._jobs.end(job, "cancelled")
        elif not job.ended.is_set() and not job.cancelled and self._process is not None:
            job.cancelled = True
            self._process.send({"do": "cancel"})
            asyncio.get_running_loop().call_later(CANCEL_S, self._insist, job, self._process)
        return job.view

    def _insist(self, job: Job, process: WorkerProcess) -> None:
        if not job.ended.is_set():
            process.kill()

    async def _work(self) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            await clear_away(self._folder / FOOTPRINT, kill_s=KILL_TIMEOUT_S, on_stuck=_note_stuck)
        except OSError as error:
            _log.error("whether an earlier process still prepares pictures is not known: %s", error.strerror)
        while not self._is_stopping:  # a cancel is lost on a wait that ends in the same moment
            self._news.clear()
            job = next(self._jobs.open_apart(), None)
            if job is None:
                await self._news.wait()
            else:
                await self._do(job)

    async def _do(self, job: Job) -> None:
        """Have a job done, or give it back when its process is lost."""
        ends: asyncio.Queue[WorkerExit] = asyncio.Queue()
        process = self._make_process(partial(self._take, job), ends.put_nowait)
        try:
            await process.start(self._settings())
            self._process = process
            if not job.ended.is_set():  # nobody cancelled it meanwhile
                job.sent = True
                process.send({**job.message, "device": self._device()})
                self._jobs.show(job, state="running")
            await self._await_end(job, process, ends)
        except VocableError as error:
            self._jobs.end(job, "failed", describe_error(error))
        except asyncio.CancelledError:
            process.kill()
            raise
        except Exception:
            _log.exception("a job that prepares pictures could not be looked after")
            process.kill()
            hint = "The service's log holds the details."
            self._jobs.end(job, "failed", ErrorInfo(code="internal", title="The service made a mistake.", hint=hint))
        finally:
            self._process = None

    async def _await_end(self, job: Job, process: WorkerProcess, ends: asyncio.Queue[WorkerExit]) -> None:
        """Return when the process is gone; at most one lives at a time."""
        is_done, is_gone = asyncio.create_task(job.ended.wait()), asyncio.create_task(ends.get())
        try:
            await asyncio.wait({is_done, is_gone}, return_when=asyncio.FIRST_COMPLETED)
            if not is_gone.done():
                await process.stop(timeout_s=LEAVE_S)
            end = await is_gone
            if end.kind == "wedged":  # it hangs inside the kernel, on a dead network disk perhaps
                self._jobs.end(job, "failed", ErrorInfo(code="worker.lost", title=end.title, hint=end.hint))
                await ends.get()
        finally:
            is_done.cancel()
            is_gone.cancel()
        if not job.ended.is_set():
            _log.error("a process that prepared pictures was lost: %s", end.title)
            self._jobs.give_back(job, end.title, is_crash=True)

    def _take(self, job: Job, message: Message) -> None:
        """Take what the process says of its job."""
        if message.get("job") != job.id or job.ended.is_set():
            return
        match message["type"]:
            case "job":
                self._jobs.show_progress(job, done=message["done"], total=message["total"], detail=message["detail"])
            case "result":
                result: dict[str, Any] = message["result"]
                job.view = job.view.model_copy(update={"result": result, "detail": ""})
                self._jobs.end(job, "cancelled" if job.cancelled else "done")
            case "failed":
                error = None if job.cancelled else read_error(message["error"])
                self._jobs.end(job, "cancelled" if job.cancelled else "failed", error)


def check_request(request: PreprocessRequest, datasets: Sequence[Path], models: CaptionModels) -> None:
    """Look whether folders and captioning model are there, before anything is queued. Reads names and a few bytes.

    Raises:
        VocableError: see find_folders and identify_captioner.
    """
    find_folders(request, datasets)
    identify_captioner(request.options.captions, models)


def _note_stuck(pid: int) -> None:
    _log.error("a process of an earlier service (pid %d) that prepared pictures cannot be killed", pid)
