"""The service in a few words: the status line for the service manager, and the state that SIGUSR1 logs."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections import Counter
from pathlib import Path

from daemon.service import Service


def status_line(service: Service) -> str:
    """What it does now, for `systemctl status`."""
    if service.ledger.problem:
        return f"Trouble: {service.ledger.problem}"
    runs = service.ledger.runs.unfinished()
    current = next((run.view for run in runs if run.view.state == "running"), None)
    waiting = sum(run.view.state == "queued" for run in runs)
    doing = f"training {current.name}, step {current.step} of {current.steps}" if current else "no run"
    return f"{doing}, {waiting} waiting"


def dump_state(service: Service, connections: int) -> str:
    """Everything that tells whether the service is well, as one line of JSON."""
    values = {
        "boot_id": service.boot_id,
        "pid": os.getpid(),
        "seq": service.hub.seq,
        "connections": connections,
        "streams": service.hub.streams,
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "resident_bytes": _resident_bytes(),
        "runs": Counter(view.state for view in service.ledger.runs.ordered()),
        "jobs": [
            job.view.model_dump(mode="json", include={"id", "kind", "state"}) for job in service.queue.jobs.open()
        ],
        "words": len(service.shelves.words.table.views),
        "hypernetworks": len(service.shelves.hypernetworks.table.views),
        "worker": service.queue.keeper.view.model_dump(mode="json"),
        "embeddings": service.shelves.words.health(),
        "problem": service.ledger.problem,
    }
    return json.dumps(values)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
