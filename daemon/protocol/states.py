"""The states of runs and jobs, and which commands are possible in which."""

from __future__ import annotations

from typing import Literal

RunState = Literal["queued", "running", "paused", "stopped", "finished", "failed"]
"""queued: waits for the worker. running: has the worker (see `phase`). paused: checkpointed, waits for `resume`;
with the error `disk.full` it goes on by itself when there is room.
stopped: ended early on request, its embedding is saved; `resume` goes on. finished: all steps are done.
failed: ended by an error that the run's `error` tells; `resume` tries again from the newest checkpoint."""

JobState = Literal["queued", "running", "done", "failed", "cancelled"]

RunCommand = Literal["pause", "resume", "stop"]

POSSIBLE: dict[RunState, frozenset[RunCommand]] = {
    "queued": frozenset({"pause", "stop"}),
    "running": frozenset({"pause", "stop"}),
    "paused": frozenset({"resume", "stop"}),
    "stopped": frozenset({"resume"}),
    "finished": frozenset(),
    "failed": frozenset({"resume"}),
}
"""A command that repeats the state it leads to (pause when paused, ...) is accepted and changes nothing."""

ENDED: frozenset[RunState] = frozenset({"stopped", "finished", "failed"})
