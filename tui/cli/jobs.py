"""Waiting for a job of the service (pictures, an evaluation, a new word, a folder) with progress; Ctrl-C cancels it.

Used by `generate`, `new`, `preprocess` and `demo`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from engine.errors import VocableError
from tui.cli.progress import Progress

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.protocol.jobs import JobView

_WAIT_S = 0.5
"""How often progress is asked for; the end is told at once."""

_MAX_DETAIL = 40


async def finish_job(client: Client, job: JobView, progress: Progress, label: str) -> dict[str, Any]:
    """Wait until a job is done and return its result; when this wait is cancelled, so is the job.

    Raises:
        VocableError: the job's own error, or `job.cancelled`.
    """
    try:
        while job.state in ("queued", "running"):
            progress.update(label, job.done, job.total, shorten(job.detail, _MAX_DETAIL))
            job = await client.job(job.id, wait_s=_WAIT_S)
    except asyncio.CancelledError:
        with contextlib.suppress(VocableError):
            await client.cancel_job(job.id)
        raise
    if job.state == "cancelled":
        raise VocableError("job.cancelled", "The job was cancelled.", "Ask again when you want it after all.")
    if job.state == "failed":
        error = job.error
        raise VocableError(
            error.code if error else "job.failed",
            error.title if error else "The job failed.",
            error.hint if error else "",
        )
    if job.total:
        progress.update(label, job.total, job.total)
    return job.result or {}


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and end with an ellipsis between: names of pictures differ at either."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-(limit - 1 - half) :]}"
