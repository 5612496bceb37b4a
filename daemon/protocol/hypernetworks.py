"""Requests and replies about hypernetworks: those of the hypernetworks folder, and what a file of one holds.

Texts from files are escaped for terminals.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

HypernetworkVerdict = Literal["usable", "wrong_width", "unreadable", "shadowed"]


class HypernetworkView(BaseModel):
    """One file that is a hypernetwork or was meant to be one. What is not usable is listed with the reason."""

    name: str
    """As `<hypernet:NAME>` names it: the file's name without extension."""
    path: str
    usable: bool
    verdict: HypernetworkVerdict = "usable"
    """wrong_width: no attention of the model has a width that it was made for. shadowed: another file has its name."""
    reason: str = ""
    """Why it is not usable."""
    warning: str = ""
    """Why a usable one may not do what is expected: another base model, widths that the model does not have."""
    step: int | None = None
    sizes: list[float] = Field(default_factory=list)
    """Layer structure: width of each layer as a multiple of what goes in, e.g. 1, 2, 1."""
    activation: str = ""
    layer_norm: bool = False
    widths: list[int] = Field(default_factory=list)
    """Channel counts that it has modules for, e.g. 320, 640, 768, 1280."""
    parameters: int = 0
    """Numbers that it holds."""
    family: str = ""
    """`sd1`, `sd2`, else `other`."""
    flavour: str = ""
    """Which layout the file is: `webui-pt`, `webui-pt-old` or `safetensors`."""
    model: str = ""
    """Name of the base model it was trained on, as its file says."""
    model_hash: str = ""
    hash: str = ""
    """First 12 hex digits of the file's SHA-256."""


class HypernetworkList(BaseModel):
    """`GET /v1/hypernetworks`, sorted by name without regard to case."""

    hypernetworks: list[HypernetworkView]


class HypernetworkReport(BaseModel):
    """What a file of a hypernetwork holds, and whether a model takes it."""

    name: str
    step: int | None = None
    sizes: list[float]
    activation: str
    weight_init: str
    """How the weights were before training."""
    layer_norm: bool
    activate_output: bool
    dropout: list[float]
    """Probability of dropout after each layer while it is trained."""
    last_layer_dropout: bool
    widths: list[int]
    parameters: int
    family: str
    model: str = ""
    model_hash: str = ""
    info: str = ""
    """Free text that the file carries."""
    fits: bool
    """Whether the model that was compared with takes it."""
    reason: str = ""
    """Why not."""
    warning: str = ""
    """Why it may not do what is expected."""
