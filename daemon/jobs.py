"""Short work (pictures, evaluations, new files, prepared folders) and those who wait for it.

Used by the queue, for what the worker does, and by preparation.

Jobs live as long as the service: whoever asked for one waits for it, and asks again when the service went away.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.events import Hub
from daemon.protocol.jobs import JobView
from daemon.protocol.runs import ErrorInfo
from daemon.protocol.states import JobState
from daemon.waiting import wait_at_most
from engine.errors import VocableError

MAX_WAITING = 256
MAX_ENDED = 256
"""Jobs that are remembered after their end."""


@dataclass(eq=False)
class Job:
    view: JobView
    message: dict[str, Any]
    """What the worker is sent."""
    destination: Path | None = None
    """Where the worker writes a word; a file that is there goes to trash/ first."""
    replaces: tuple[Path, ...] = ()
    """Other files of the same word, which go to trash/ when the new one is there."""
    apart: bool = False
    """Done in a process of its own, not by the worker; see daemon.preparation."""
    sent: bool = False
    cancelled: bool = False
    """Somebody asked for its end."""
    workers_lost: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.view.id


def new_job(
    kind: str,
    request: dict[str, Any],
    *,
    destination: Path | None = None,
    replaces: Sequence[Path] = (),
    apart: bool = False,
) -> Job:
    """A job that nobody knows of yet; see Job for the arguments."""
    view = JobView.model_validate(
        {"id": secrets.token_hex(6), "kind": kind, "state": "queued", "created_at": time.time()}
    )
    message = {"do": kind, "job": view.id, "request": request}
    if destination:
        message["destination"] = str(destination)
    return Job(view, message, destination, tuple(replaces), apart=apart)


class Jobs:
    """All jobs, in the order they came; every change is published."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._jobs: dict[str, Job] = {}
        self._requests: dict[str, tuple[str, Job]] = {}

    def find_request(self, key: str, digest: str) -> Job | None:
        """The job that an earlier request with this idempotency key made.

        Raises:
            VocableError: `request.key_reused` when that request asked for something else.
        """
        found = self._requests.get(key)
        if found is None or found[1].id not in self._jobs:
            return None
        if found[0] != digest:
            hint = "Use a new one for each job."
            raise VocableError("request.key_reused", "This Idempotency-Key was used for another request.", hint)
        return found[1]

    def note_request(self, key: str, digest: str, job: Job) -> None:
        """Remember the job of a request as long as the job itself; an empty key means nothing."""
        self._requests = {known: item for known, item in self._requests.items() if item[1].id in self._jobs}
        if key:
            self._requests[key] = digest, job

    def add(self, job: Job) -> None:
        """Take a job. Raises VocableError `queue.full`."""
        if sum(not other.ended.is_set() for other in self._jobs.values()) >= MAX_WAITING:
            raise VocableError("queue.full", f"{MAX_WAITING} jobs wait already.", "Try again when some are done.")
        ended = [other.id for other in self._jobs.values() if other.ended.is_set()]
        for identifier in ended[: max(0, len(ended) - MAX_ENDED)]:
            del self._jobs[identifier]
        self._jobs[job.id] = job
        self.show(job, state="queued")

    def get(self, identifier: str) -> Job:
        """The job. Raises VocableError `job.unknown`."""
        if identifier not in self._jobs:
            raise VocableError(
                "job.unknown", "There is no such job.", "Jobs end with the service; ask for the work again."
            )
        return self._jobs[identifier]

    def open(self) -> Iterator[Job]:
        """Jobs for the worker that have not ended."""
        return (job for job in self._jobs.values() if not job.ended.is_set() and not job.apart)

    def open_apart(self) -> Iterator[Job]:
        """The others that have not ended."""
        return (job for job in self._jobs.values() if not job.ended.is_set() and job.apart)

    def find_open(self, identifier: Any) -> Job | None:
        """The job, unless it ended."""
        job = self._jobs.get(identifier)
        return job if job and not job.ended.is_set() else None

    def show(self, job: Job, *, state: JobState, error: ErrorInfo | None = None) -> None:
        job.view = job.view.model_copy(update={"state": state, "error": error})
        self._hub.fact("job", job.view, key=job.id)

    def show_progress(self, job: Job, *, done: int, total: int, detail: str = "") -> None:
        job.view = job.view.model_copy(update={"done": done, "total": total, "detail": detail})
        self._hub.gauge("job", job.view, key=job.id)

    def end(self, job: Job, state: JobState, error: ErrorInfo | None = None) -> None:
        """The job's last change; later ones are ignored."""
        if not job.ended.is_set():
            job.ended.set()
            self.show(job, state=state, error=error)

    def give_back(self, job: Job, reason: str, *, is_crash: bool) -> None:
        """Keep a job for the next worker, unless it was cancelled or two were lost under it."""
        job.sent = False
        job.workers_lost += is_crash
        if job.cancelled:
            self.end(job, "cancelled")
        elif job.workers_lost > 1:
            log = "state/preprocess/worker.log" if job.apart else "state/worker.log"
            hint = f"See {log} in the workspace, and try again."
            self.end(job, "failed", ErrorInfo(code="worker.lost", title=reason, hint=hint))
        else:
            self.show(job, state="queued")


async def wait_for_end(job: Job, wait_s: float) -> JobView:
    """The job's view once it ended, at the latest after `wait_s` seconds."""
    await wait_at_most(job.ended, wait_s)
    return job.view
