"""What the service says of itself, of its words, and in its event stream."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from daemon.protocol.hypernetworks import HypernetworkView
from daemon.protocol.runs import RunView

API_VERSION = 1
"""Never raised for additions; those get a word in `capabilities`."""

CAPABILITIES = [
    *("runs", "generate", "evaluate", "embeddings", "models", "events", "shutdown"),
    *("inspect", "convert", "tokens", "parameters", "recipes.check", "queue"),
    *("runs.files", "runs.delete", "templates", "datasets", "settings", "hypernetworks", "preprocess"),
]

HEARTBEAT_S = 10.0
"""A stream sends a line at least this often; a client takes it for dead after three times as long."""


class ServerInfo(BaseModel):
    """`GET /v1/`."""

    api: int = API_VERSION
    daemon: str
    """Version of the program."""
    boot_id: str
    pid: int
    workspace: str
    socket: str
    capabilities: list[str] = Field(default_factory=lambda: list(CAPABILITIES))


class WorkerView(BaseModel):
    """The process that owns the device."""

    pid: int | None = None
    state: Literal["absent", "starting", "idle", "busy", "failed", "gpu_wedged"] = "absent"
    """gpu_wedged: it hangs in a driver, cannot be killed, and keeps the device; no other is started."""
    device: str = ""
    model: str = ""
    """Name of the loaded model, empty when none is."""
    note: str = ""
    """Why it failed or waits, for people."""


class QueueView(BaseModel):
    """`GET /v1/queue`: whether work gets to a worker.

    paused: too many workers were lost in a short time; goes on after `POST /v1/queue/resume`, or when a run is resumed.
    blocked: the device is kept by a process that cannot be killed; goes on when that is gone.
    """

    state: Literal["running", "paused", "blocked"] = "running"
    reason: str = ""
    """Why it is paused or blocked, for people."""
    order: list[str] = Field(default_factory=list)
    """Ids of the queued runs, the next one first."""


class WordView(BaseModel):
    """One word of one embedding file, or a file that holds none. What is not usable is listed with the reason."""

    name: str
    path: str
    usable: bool
    verdict: Literal["usable", "wrong_width", "unreadable", "shadowed"] = "usable"
    """wrong_width: made for another kind of model. shadowed: another word is found first wherever this one stands."""
    reason: str = ""
    """Why it is not usable."""
    warning: str = ""
    """Why a usable word may not do what is expected: an ordinary word of the vocabulary, another base model."""
    vectors: int = 0
    width: int = 0
    """Length of each vector; for two text encoders the sum."""
    family: str = ""
    """`sd1`, `sd2`, `sdxl`, else `other`."""
    flavour: str = ""
    """Which layout the file is, for people."""
    step: int | None = None
    model: str = ""
    """Name of the base model it was trained on, as its file says; escaped for terminals."""
    model_hash: str = ""
    hash: str = ""
    """First 12 hex digits of the file's SHA-256."""


class WordList(BaseModel):
    """`GET /v1/embeddings`, sorted by name without regard to case."""

    words: list[WordView]


class ModelView(BaseModel):
    """One base model that recipes and requests can name."""

    name: str
    path: str
    family: str
    """`sd1`, `sd2`, `sdxl` or `starter`."""
    width: int
    """Length of a token vector, of two text encoders the sum; words of another width cannot be used with it."""
    size: int
    """Native edge of a picture in pixels."""
    hash: str
    """First 10 hex digits of the SHA-256 of the file, in a folder of the U-Net's; empty until a large one is hashed."""
    split: int = 0
    """Columns of the first of two text encoders; 0 where there is one."""
    prediction_type: str = ""
    """`epsilon`, `v_prediction` or `sample`; empty when only the loaded model tells."""
    inpainting: bool = False


class ModelList(BaseModel):
    """`GET /v1/models`, the starter first."""

    models: list[ModelView]


class FoldersView(BaseModel):
    """Reply of `POST /v1/rescan`: how each folder was watched before; a changed `last_scan` shows that it was done."""

    folders: dict[str, Any]
    """As in State."""


class State(BaseModel):
    """`GET /v1/state`: everything a screen shows, taken together at event number `seq`."""

    boot_id: str
    seq: int
    runs: list[RunView]
    words: list[WordView]
    hypernetworks: list[HypernetworkView] = Field(default_factory=list)
    worker: WorkerView
    queue: QueueView = Field(default_factory=QueueView)
    folders: dict[str, Any] = Field(default_factory=dict)
    """Watched folders by name (embeddings, hypernetworks, datasets, templates, models, inbox): `mode` (inotify or
    polling), `reason` for polling or a fault, `entries` of the folder itself, `files` in all, `last_scan`,
    `last_event`."""
    problem: str = ""
    """Why the service is degraded (disk full, no history, ...), empty when it is well."""


class StreamLine(BaseModel):
    """One line of `GET /v1/events?after=BOOT_ID:SEQ` (NDJSON).

    hello: first line, with `boot_id`, `seq`, `oldest`. reset: `after` is unknown here; read /v1/state again.
    fact: numbered, kept for a while; `topic` is `run` (a RunView), `worker` (a WorkerView), `queue` (a QueueView),
    `job` (a JobView), `words` and `hypernetworks` (`count`, `usable`; read /v1/embeddings and /v1/hypernetworks for
    them), `problem` (`problem`, empty when all is well), `run.removed` (`id`), `recipe` (what became of a recipe
    dropped into inbox/ or with a dataset: `path`, `outcome`, which is queued or refused, `run`, `code`, `reason`), or
    `folder` (`name`, `mode`, `reason`, `entries` of datasets, templates, models or inbox; read /v1/state for more).
    gauge: newest value of `key` only, may be left out; topic `progress` carries a RunView, topic `job` a JobView.
    heartbeat; lagged: too slow, the stream ends, read /v1/state again; bye: the service stops, with `reason`.
    """

    type: Literal["hello", "reset", "fact", "gauge", "heartbeat", "lagged", "bye"]
    boot_id: str = ""
    seq: int = 0
    oldest: int = 0
    topic: str = ""
    key: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    reason: str = ""
