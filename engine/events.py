"""What training reports while it goes on: plain values that cross the wire as JSON.

Training yields these in the worker; the supervisor keeps what must be kept and passes them on. Paths are
absolute strings. Nothing here imports anything heavy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PhaseChanged:
    """The run does something else now: `loading`, `encoding`, `training`, `preview` or `saving`."""

    phase: str
    done: int = 0
    """Units of this phase that are done, e.g. pictures encoded; 0 of 0 when it has no units."""
    total: int = 0


@dataclass(frozen=True)
class Prepared:
    """Everything that can be known before the first step is known and right."""

    pictures: int
    skipped: tuple[str, ...]
    """Sentences, one for each picture that could not be read."""
    step: int
    """Steps already done, above zero for a resumed run."""
    steps: int


@dataclass(frozen=True)
class Step:
    """One update, as read back from the device some steps later."""

    step: int
    """Updates done after this one, from 1."""
    loss: float | None
    """Mean squared error of the batch; None when it was not finite and the update was left out."""
    learn_rate: float


@dataclass(frozen=True)
class Progress:
    """Steps since the last report, sent a few times a second at most."""

    step: int
    steps: int
    losses: tuple[Step, ...]
    mean_loss: float
    """Exponential mean of the losses (decay 0.99, bias-corrected)."""
    learn_rate: float
    steps_per_second: float
    prompt: str
    """A prompt of the newest batch."""


@dataclass(frozen=True)
class CopySaved:
    """A numbered copy of the embedding was written."""

    step: int
    path: str


@dataclass(frozen=True)
class PreviewSaved:
    """A preview was made and written."""

    step: int
    path: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class CheckpointSaved:
    """From here the run can go on exactly."""

    step: int
    path: str


@dataclass(frozen=True)
class DatasetChanged:
    """Another set of pictures is trained on from now on."""

    after_step: int
    """Updates done before; the next one is the first that may show the new set."""
    pictures: int
    """In all."""
    title: str
    """What is new, removed, changed, as a sentence."""


@dataclass(frozen=True)
class Warned:
    """Something went wrong that does not end the run."""

    code: str
    title: str
    hint: str = ""


@dataclass(frozen=True)
class Ended:
    """The run left the device. `outcome` is `finished`, `stopped` or `paused`; failures are exceptions."""

    outcome: str
    step: int
    embedding: str
    """Path of the embedding in the embeddings folder; empty when paused."""


Event = (
    PhaseChanged | Prepared | Progress | CopySaved | PreviewSaved | CheckpointSaved | DatasetChanged | Warned | Ended
)

_KINDS: dict[str, type[Any]] = {
    "phase": PhaseChanged,
    "prepared": Prepared,
    "progress": Progress,
    "copy": CopySaved,
    "preview": PreviewSaved,
    "checkpoint": CheckpointSaved,
    "dataset": DatasetChanged,
    "warned": Warned,
    "ended": Ended,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def event_to_dict(event: Event) -> dict[str, Any]:
    """Make a JSON object of an event; `event` names its kind."""
    return {"event": _NAMES[type(event)], **asdict(event)}


def event_from_dict(values: dict[str, Any]) -> Event:
    """Read back what `event_to_dict` made. Raises KeyError or TypeError when it is none of ours."""
    fields = dict(values)
    kind = _KINDS[fields.pop("event")]
    if kind is Progress:
        fields["losses"] = tuple(Step(**step) for step in fields["losses"])
    if kind is Prepared:
        fields["skipped"] = tuple(fields["skipped"])
    event: Event = kind(**fields)
    return event
