"""Requests and replies about hypernetworks: those of the hypernetworks folder, and what a file of one holds.

Texts from files are escaped for terminals.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from engine.hypernetwork.structure import MAX_SIZES, MAX_WIDTH, Activation, WeightInit, dropout_fault, sizes_fault
from engine.recipe import MAX_SEED

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


class OptimizerReport(BaseModel):
    """What webui's `.optim` file beside a hypernetwork or embedding holds; it is told of and never used."""

    of: Literal["hypernetwork", "embedding"]
    optimizer: str = ""
    """Its name, where the file says it."""
    hash: str = ""
    """Of the file that it belongs to: 10 hex digits of a hypernetwork's SHA-256, or an embedding's checksum."""
    step: int | None = None
    learn_rate: float | None = None
    tensors: int
    """How many are trained, as are the numbers in them."""
    numbers: int


class CreateHypernetwork(BaseModel, extra="forbid"):
    """Body of `POST /v1/hypernetworks`: one that is not trained yet. The fields are those of a recipe's `start`."""

    name: str
    model: str = "starter"
    sizes: list[float] = Field(default=[1, 2, 1], max_length=MAX_SIZES)
    widths: list[int] = Field(default_factory=list, max_length=16)
    """Channel counts that get modules; all that the model's attention has when empty."""
    activation: Activation = "linear"
    init: WeightInit = "Normal"
    layer_norm: bool = False
    dropout: list[float] = Field(default_factory=list, max_length=MAX_SIZES)
    """One number for each of `sizes`; empty for none."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    overwrite: bool = False
    """Replace a hypernetwork of the same name; the old file goes to trash/."""

    @model_validator(mode="after")
    def _check_structure(self) -> CreateHypernetwork:
        faults = {"sizes": sizes_fault(self.sizes), "dropout": ""}
        if self.dropout and not faults["sizes"]:
            faults["dropout"] = dropout_fault(self.dropout, self.sizes)
        if not all(1 <= width <= MAX_WIDTH for width in self.widths):
            faults["widths"] = f"holds a number that is not from 1 to {MAX_WIDTH}"
        told = [f"{name} {fault}" for name, fault in faults.items() if fault]
        if told:
            raise ValueError("; ".join(told))
        return self
