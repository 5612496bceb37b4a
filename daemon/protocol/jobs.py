"""Requests for pictures, evaluations and new files. Each is a job in the queue of the worker.

A job answers 202 with a `JobView`; `GET /v1/jobs/ID?wait=S` returns as soon as it ended, or after S seconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from daemon.protocol.runs import ErrorInfo
from daemon.protocol.states import JobState
from engine.recipe import MAX_SEED, Emphasis, Sampler


class GenerateRequest(BaseModel, extra="forbid"):
    """Body of `POST /v1/generate`."""

    prompts: list[str] = Field(min_length=1, max_length=256)
    """One picture set for each prompt; words of the embeddings folder may stand in them."""
    negative_prompt: str = Field("", max_length=10_000)
    model: str = "starter"
    sampler: Sampler = "DPM++ 2M"
    steps: int = Field(20, ge=1, le=500)
    cfg_scale: float = Field(7.0, ge=1, le=100)
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the first picture; each further picture of a prompt counts up by one, each prompt starts again."""
    width: int | None = Field(None, ge=8, le=4096, multiple_of=8)
    height: int | None = Field(None, ge=8, le=4096, multiple_of=8)
    count: int = Field(1, ge=1, le=64)
    """Pictures of each prompt."""
    emphasis: Emphasis = "Original"
    """How `(weights)` act: `Original` keeps the mean of the conditioning, `No norm` does not, `Ignore` drops weights,
    `None` takes brackets as text."""
    clip_skip: int = Field(1, ge=1, le=12)
    """Layer of the text encoder that is used, counted from its end; 1 is the last."""
    compat: Literal["", "webui"] = ""
    """`webui` switches `[a:b:N]` and `[a|b]` one step late, as AUTOMATIC1111's webui does; old seeds depend on it."""
    output: str = Field(min_length=1, max_length=4096)
    """Absolute path of the PNG to write; with several pictures `-1`, `-2`, ... come before the suffix."""


class EvaluateRequest(BaseModel, extra="forbid"):
    """Body of `POST /v1/evaluate`: the deterministic loss on held-out pictures for several phrases."""

    model: str = "starter"
    folder: str
    """Absolute path of a folder of pictures with captions."""
    template: str = "subject_filewords"
    phrases: list[str] = Field(min_length=1, max_length=64)
    """Each stands in the place of `[name]` in turn; words of the embeddings folder may stand in them."""
    width: int | None = Field(None, ge=8, le=2048, multiple_of=8)
    height: int | None = Field(None, ge=8, le=2048, multiple_of=8)
    seed: int = Field(0, ge=0, le=MAX_SEED)


class CreateEmbedding(BaseModel, extra="forbid"):
    """Body of `POST /v1/embeddings`."""

    name: str
    model: str = "starter"
    init_text: str = Field("*", max_length=1000)
    vectors: int = Field(1, ge=1, le=75)
    overwrite: bool = False
    """Replace a word of the same name; the old file goes to trash/."""


class JobView(BaseModel):
    """A job. `result` of generate: `pictures` (paths), `warnings` (sentences, escaped); of evaluate: `losses` (in
    the order of the phrases); of create: `embedding` (path); of create_hypernetwork: `hypernetwork` (path);
    of preprocess: a `PreprocessResult`."""

    id: str
    kind: Literal["generate", "evaluate", "create", "create_hypernetwork", "preprocess"]
    state: JobState
    done: int = 0
    total: int = 0
    """Units (sampling steps, pictures) done and to do; 0 of 0 before they are known."""
    detail: str = ""
    """What was done last, escaped: the name of a picture; empty where numbers tell all."""
    result: dict[str, Any] | None = None
    error: ErrorInfo | None = None
    created_at: float
