"""What files of words and hypernetworks hold, conversions between formats, and prompts as the model will see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from daemon.protocol.hypernetworks import HypernetworkReport, OptimizerReport
from daemon.protocol.jobs import GenerateRequest
from daemon.protocol.runs import ErrorInfo

WordFormat = Literal["safetensors", "webui-pt", "diffusers", "onetrainer", "png"]
"""Formats that are written; every other that is known is read."""

FORMAT_SUFFIXES: dict[WordFormat, str] = {
    "safetensors": ".safetensors",
    "webui-pt": ".pt",
    "diffusers": ".safetensors",
    "onetrainer": ".safetensors",
    "png": ".png",
}
"""How files of each format end, by which other programs know them."""


class InspectRequest(BaseModel, extra="forbid"):
    """Body of `POST /v1/inspect`."""

    paths: list[str] = Field(min_length=1, max_length=256)
    """Absolute paths of files; they need not lie in a watched folder."""
    model: str = ""
    """Base model to compare with; the one that is loaded, else the starter, when empty."""


class EncoderReport(BaseModel):
    """A word's vectors for one text encoder."""

    key: str
    """`emb_params` for a model of one encoder, else `clip_l` and `clip_g`."""
    width: int
    norms: list[float]
    """Euclidean length of each vector."""


class WordReport(BaseModel):
    """One word of a file. Texts from the file are escaped for terminals."""

    name: str
    """What prompts call it: the file's name without extension, made lawful; the key's, for a word inside a LoRA."""
    trigger: str = ""
    """What the file itself calls it; for people only."""
    vectors: int
    width: int
    """Sum of the widths of its encoders."""
    family: str
    """`sd1` (768), `sd2` (1024), `sdxl` (768 + 1280), else `other`."""
    encoders: list[EncoderReport]
    step: int
    model: str = ""
    """Name of the base model it was trained on, where known; as is `model_hash`."""
    model_hash: str = ""
    checksum: str = ""
    """4 hex digits over the vectors, as webui matches optimizer files; empty for a pair, where it is not defined."""
    fits: bool
    """Whether the model that was compared with takes it."""
    reason: str = ""
    """Why not."""
    warning: str = ""
    """Why it may not do what is expected: another base model, an ordinary word."""


class FileReport(BaseModel):
    """One file: its words or its hypernetwork, or the error of reading it."""

    path: str
    size: int = 0
    hash: str = ""
    """First 12 hex digits of the file's SHA-256, as pictures' parameters name it."""
    flavour: str = ""
    """Which layout it is, for people, e.g. `webui .pt (zip)`."""
    words: list[WordReport] = Field(default_factory=list)
    hypernetwork: HypernetworkReport | None = None
    """For a file of a hypernetwork, which has no words."""
    optimizer: OptimizerReport | None = None
    """For webui's `.optim` file beside either."""
    error: ErrorInfo | None = None


class InspectReply(BaseModel):
    """In the order of the paths."""

    model: str
    """Name of the model that was compared with."""
    files: list[FileReport]


class ConvertRequest(BaseModel, extra="forbid"):
    """Body of `POST /v1/convert`."""

    path: str
    """Absolute path of the file to read."""
    second: str = ""
    """The other half of an SDXL word that diffusers keeps in two files."""
    word: str = ""
    """Which word of a file that holds several."""
    format: WordFormat
    """A hypernetwork is written as `safetensors` or `webui-pt`."""
    output: str = Field(min_length=1, max_length=4096)
    """Absolute path of the file to write. For two encoders `diffusers` writes a second, `NAME_2.safetensors`."""
    picture: str = ""
    """For `png`: absolute path of the picture to write the word into; one beside the file, else a plain one."""
    overwrite: bool = False


class ConvertReply(BaseModel):
    """Files were written, read again and found equal bit for bit."""

    kind: Literal["embedding", "hypernetwork"] = "embedding"
    """What the file holds."""
    paths: list[str]
    name: str
    vectors: int
    """0, as is the width, for a hypernetwork."""
    width: int
    notes: list[str] = Field(default_factory=list)
    """What the format cannot hold and is lost, and what a reader should know; escaped."""


class TokensRequest(BaseModel, extra="forbid"):
    """Body of `POST /v1/tokens`."""

    prompt: str = Field(max_length=10_000)
    model: str = ""
    steps: int = Field(20, ge=1, le=500)
    """Sampling steps, on which the switches of `[a:b:0.5]` depend."""
    new_words: dict[str, int] = Field(default_factory=dict, max_length=64)
    """Words that no file holds yet, with their vectors (1 to 75); they stand before those of the folder."""


class TokensReply(BaseModel):
    """What a prompt takes: its longest variant over all parts of AND and all switches."""

    model: str
    count: int
    """Slots taken; a word counts with its vectors, and what a closed chunk leaves unused counts too."""
    limit: int
    """`count` rounded up to whole chunks of 75; at least one."""
    chunks: list[int]
    """Slots taken in each chunk."""
    words: list[str]
    """Words of the embeddings folder that were found, each once."""
    hypernetworks: list[str] = Field(default_factory=list)
    """Hypernetworks that its tags name, each once."""
    notes: list[str] = Field(default_factory=list)
    """Unknown names, tags without effect, what was made for another base model; escaped."""


class ParametersRequest(BaseModel, extra="forbid"):
    """Body of `POST /v1/parameters`."""

    path: str
    """Absolute path of a picture (PNG, JPEG, WebP)."""


class ParametersReply(BaseModel):
    """What a picture says of how it was made, and the request that makes it again."""

    text: str
    """The whole `parameters` text, escaped line by line."""
    request: GenerateRequest
    """Ready to be sent once `output` is set; `output` is the picture's own path with `-again` before the suffix."""
    notes: list[str] = Field(default_factory=list)
    """What could not be carried over: an unknown sampler, a model that is not here, other words of the same names."""


class Rename(BaseModel, extra="forbid"):
    """Body of `POST /v1/embeddings/NAME/rename` and `POST /v1/hypernetworks/NAME/rename`."""

    name: str = Field(max_length=1000)
    """The new name; the file keeps its folder and its extension."""
