"""The process that prepares pictures: `python -m daemon.worker.preparer`, one for each job, beside the worker.

Spawned by daemon.preparation. It yields to everything else on the machine, imports torch only when captions need a
model, and never touches the model that the worker holds. A kill at any moment leaves whole files only.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.protocol.preprocess import PreprocessJob
from daemon.worker import guards
from daemon.worker.board import IDLE, JOB, Board
from daemon.worker.channel import Channel
from daemon.worker.crashes import write_report
from daemon.worker.main import Line, dismiss, enlist
from daemon.worker.prepared import Tally, describe_plan
from daemon.worker.wire import Message
from engine.errors import VocableError
from engine.preprocess.caption import ModelCaptioner, open_captioner
from engine.preprocess.caption_files import CaptionModels, identify_captioner
from engine.preprocess.plan import plan
from engine.preprocess.request import Captions, PreprocessRequest
from engine.preprocess.results import PictureDone
from engine.preprocess.run import preprocess
from engine.text import escape

NICENESS = 10
"""Whatever else the machine does comes first, a training run above all."""

OOM_SCORE = 800
"""When memory runs out, this process goes before the worker: it loses seconds of work, a run minutes."""

_ROOM_ON_GPU = 6 << 30
"""Bytes that have to be free on the device for a captioning model to go there."""

_ROOM_FOR_PICTURES = 1 << 30
"""Memory in bytes that one process may take for one picture of the largest size."""


def main() -> None:
    line = enlist(sys.argv[1:])
    os.nice(NICENESS)
    guards.be_killed_first(OOM_SCORE)
    try:
        Preparer(line).serve()
        code = 0
    except Exception as error:
        traceback.print_exception(error)
        write_report(line.report, error, line.board.read())
        code = os.EX_SOFTWARE
    dismiss(line.channel, code)


class Preparer:
    """The work, and an eye on what the supervisor says meanwhile."""

    def __init__(self, line: Line) -> None:
        self._channel: Channel = line.channel
        self._board: Board = line.board
        self._is_over = False
        """The job was cancelled, or the process is to leave."""
        self._is_leaving = False

    def serve(self) -> None:
        """Do what comes until told to leave."""
        settings = self._channel.receive(wait=True)
        if settings is None or settings["do"] != "settings":
            raise RuntimeError("the first message must be the settings")
        self._settings = settings
        self._channel.send({"type": "ready", "device": ""})
        while not self._is_leaving:
            self._board.enter(IDLE, None)
            message = self._channel.receive(wait=True)
            if message is not None and message["do"] == "preprocess":
                self._serve_job(message)
            elif message is not None:
                self._take(message)

    def _take(self, message: Message) -> None:
        match message["do"]:
            case "cancel":
                self._is_over = True
            case "exit":
                self._is_over = self._is_leaving = True
            case other:
                raise RuntimeError(f"the supervisor asks for '{other}', which is not known")

    def _is_cancelled(self) -> bool:
        while (message := self._channel.receive(wait=False)) is not None:
            self._take(message)
        return self._is_over

    def _look_on(self) -> bool:
        """`_is_cancelled`, from a work that asks once for each picture."""
        self._board.move()
        return self._is_cancelled()

    def _serve_job(self, message: Message) -> None:
        job = message["job"]
        try:
            result = self._do(job, PreprocessJob.model_validate(message["request"]), message["device"])
            self._channel.send({"type": "result", "job": job, "result": result})
        except Exception as error:
            self._channel.send({"type": "failed", "job": job, "error": explain(error).to_dict()})

    def _do(self, job: str, asked: PreprocessJob, device: str) -> dict[str, Any]:
        datasets = [Path(path) for path in self._settings["datasets"]]
        models = CaptionModels(Path(self._settings["blip"]), Path(self._settings["tagger"]))
        request = PreprocessRequest.model_validate(asked.model_dump(exclude={"dry_run"}))
        self._board.enter(JOB, None)
        if asked.dry_run:
            identity = identify_captioner(request.options.captions, models)
            return describe_plan(plan(request, captioner=identity, cancel=self._look_on, datasets=datasets))
        captions = request.options.captions
        device = choose_device(captions, device)
        captioner = self._open_captioner(captions, models, device)
        work = preprocess(
            request,
            captioner=captioner,
            cancel=self._is_cancelled,
            workers=count_processes(self._settings["processes"]),
            datasets=datasets,
        )
        tally = Tally(request, datasets, device)
        for item in work:
            self._board.move()
            tally.add(item)
            if isinstance(item, PictureDone):
                detail = escape(item.picture.source, 200)
                told = {"done": item.done, "total": item.total, "detail": detail}
                self._channel.send({"type": "job", "job": job, **told})
        return tally.result()

    def _open_captioner(self, captions: Captions, models: CaptionModels, device: str) -> ModelCaptioner | None:
        self._board.enter("loading", None)
        try:
            return open_captioner(captions, models, device=device or "cpu")
        finally:
            self._board.enter(JOB, None)


def choose_device(captions: Captions, wanted: str) -> str:
    """Where a captioning model goes; empty when none is needed.

    Args:
        wanted: `auto` takes a GPU that has room for it; `cpu` leaves every GPU to others.
    """
    if captions.make not in ("blip", "tags"):
        return ""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] >= _ROOM_ON_GPU:
        return "cuda"
    return "cpu"


def count_processes(wanted: int) -> int:
    """Processes that decode and cut: as many as wanted, or as there are cores; fewer where memory is short."""
    room = max(1, _available_memory() // _ROOM_FOR_PICTURES)
    return min(wanted or len(os.sched_getaffinity(0)), room)


def _available_memory() -> int:
    """Bytes that programs can have without swapping; more than enough where the system does not say."""
    values = (line.split() for line in _lines(Path("/proc/meminfo")))
    return next((int(value[1]) << 10 for value in values if value[0] == "MemAvailable:"), 1 << 50)


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text().splitlines()
    except OSError:
        return


def explain(error: Exception) -> VocableError:
    """Make a sentence of whatever ended a job. Raises DeviceLost as daemon.worker.faults does."""
    if isinstance(error, VocableError):
        return error
    if "torch" in sys.modules:
        from daemon.worker import faults

        return faults.explain(error)
    if isinstance(error, MemoryError):
        hint = "Free memory and try again, or set preprocess.processes to 1."
        return VocableError("memory.full", "There is not enough memory to prepare these pictures.", hint)
    traceback.print_exception(error)
    sys.stderr.flush()
    first = f"{type(error).__name__}: {error}".strip().partition("\n")[0][:300]
    hint = "The details are in state/preprocess/worker.log in the workspace; please report them."
    return VocableError("worker.error", f"Something unforeseen happened: {first}", hint)


if __name__ == "__main__":
    main()
