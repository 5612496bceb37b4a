"""Requests and replies about runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from daemon.protocol.states import RunState


class ErrorInfo(BaseModel):
    """An error as users see it; `code` is for programs."""

    code: str
    title: str
    hint: str = ""
    faults: list[dict[str, str]] = Field(default_factory=list)
    """For `recipe.invalid`: every fault as `path` and `message`."""


class Warning(BaseModel):
    """Something that went wrong without ending the run."""

    code: str
    title: str
    hint: str = ""
    step: int = 0


class CreateRun(BaseModel, extra="forbid"):
    """Body of `POST /v1/runs`: the recipe as nested plain values, checked by the service."""

    recipe: dict[str, Any]


class MoveRun(BaseModel, extra="forbid"):
    """Body of `POST /v1/runs/ID/move`: either `place` or `before`."""

    place: Literal["first", "last"] | None = None
    before: str | None = Field(None, max_length=200)
    """A queued run, named like the one to move, which then comes right before it."""

    @model_validator(mode="after")
    def _check_one(self) -> MoveRun:
        if (self.place is None) == (self.before is None):
            raise ValueError("give either 'place' or 'before'")
        return self


class RecipeCheck(BaseModel):
    """`POST /v1/recipes/check`, with the body of `POST /v1/runs`: what a run would use. Faults are an error."""

    name: str
    model: str
    folder: str
    pictures: int
    """Whether each can be decoded shows only when it is read."""
    template: str
    prompts: int
    steps: int
    warnings: list[str] = Field(default_factory=list)
    """What hinders no run of this recipe by itself, but perhaps this one now."""


class RunView(BaseModel):
    """A run as lists show it. Times are seconds since 1970, UTC; paths are absolute on the service's machine."""

    id: str
    name: str
    kind: str = "embedding"
    model: str
    state: RunState
    phase: str = ""
    """While running: `loading`, `encoding`, `training`, `preview` or `saving`; else empty."""
    phase_done: int = 0
    """Units of the phase that are done (pictures encoded, sampling steps); 0 of 0 when it has none."""
    phase_total: int = 0
    asked: str = ""
    """`pause` or `stop` while the worker has not yet followed the command."""
    step: int = 0
    steps: int
    loss: float | None = None
    mean_loss: float | None = None
    learn_rate: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None
    prompt: str = ""
    """A prompt of the newest batch, escaped for terminals."""
    folder: str
    preview: str = ""
    """Path of the newest preview, empty before the first."""
    preview_step: int = 0
    dataset_change: str = ""
    """The newest change of its pictures while it trained, as a sentence; empty before the first."""
    embedding: str = ""
    """Path of what was trained, in the folder of its kind, once the run finished or was stopped."""
    error: ErrorInfo | None = None
    warnings: list[Warning] = Field(default_factory=list)
    restarts: int = 0
    """How often the worker was lost under this run."""
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None


class RunDetail(RunView):
    """`GET /v1/runs/ID`."""

    recipe: dict[str, Any]
    previews: list[str] = Field(default_factory=list)
    """Paths of all previews, oldest first."""


class RunList(BaseModel):
    """`GET /v1/runs`: in the order of the queue, then ended ones, newest first."""

    runs: list[RunView]


FileKind = Literal["preview", "copy", "carrier", "losses", "log", "recipe", "settings"]
"""copy: the word after so many steps. carrier: a picture that holds the word."""


class RunFile(BaseModel):
    """One file of a run's folder."""

    name: str
    """Relative to the folder, as `GET /v1/runs/ID/files/NAME` takes it."""
    kind: FileKind
    path: str
    size: int
    """Bytes."""
    modified_at: float


class RunFiles(BaseModel):
    """`GET /v1/runs/ID/files`, oldest first."""

    id: str
    files: list[RunFile]


class LossPoint(BaseModel):
    """One bucket of consecutive steps."""

    step: int
    """Last step of the bucket."""
    mean: float
    low: float
    high: float


class LossSeries(BaseModel):
    """`GET /v1/runs/ID/losses?points=N`: at most N buckets over all steps so far, in order."""

    id: str
    points: list[LossPoint]
