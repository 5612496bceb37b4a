"""The recipe: one typed object that says what to train.

It is the form, the command line's flags, the API body and the run's `recipe.toml`; each field's description
is the help text everywhere. Units stand in the descriptions. Checks that need the disk (does the folder
exist, is the model known) are made where the disk is, not here.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from engine.errors import Fault, RecipeError, VocableError
from engine.hypernetwork.structure import MAX_WIDTH, Activation, WeightInit, dropout_fault, sizes_fault
from engine.names import name_fault
from engine.schedule import parse_schedule

Precision = Literal["auto", "float32", "float16", "bfloat16"]
Choice = Literal["auto", "on", "off"]
Sampler = Literal["Euler a", "Euler", "DDIM", "DPM++ 2M", "DPM++ 2M Karras", "LMS", "Heun", "UniPC"]
Emphasis = Literal["Original", "No norm", "Ignore", "None"]

MAX_SEED = 2**32 - 1
"""Seeds are 32 bits wide, as in the pictures' parameters of other programs."""


Kind = Literal["embedding", "hypernetwork"]

EMBEDDING_START = ("init_text", "vectors")
"""Fields of `start` that are an embedding's; the others are a hypernetwork's."""

_HYPERNETWORK_DEFAULTS = {"train": {"learn_rate": "1e-5"}, "data": {"template": "hypernetwork"}}

MAX_STEPS = 10_000_000
"""More than any run needs; keeps a slip of the finger from filling a disk."""


class Group(BaseModel):
    """A table of the recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Start(Group):
    """What is trained, as it is before training: the word's vectors, or the hypernetwork's weights."""

    init_text: str = Field(
        "*", max_length=1000, description="Text whose token vectors fill the new word; empty means zeros."
    )
    vectors: int = Field(4, ge=1, le=75, description="Vectors of the word, each taking one of a prompt's 75 places.")
    sizes: tuple[float, ...] = Field(
        (1.0, 2.0, 1.0), description="Hypernetwork: layer structure, as multiples of a module's width; 1 at both ends."
    )
    widths: tuple[int, ...] = Field(
        (), description="Hypernetwork: channel counts that get modules, e.g. 320, 640, 768, 1280; none means all."
    )
    activation: Activation = Field("linear", description="Hypernetwork: activation between the layers.")
    init: WeightInit = Field("Normal", description="Hypernetwork: how the weights are drawn.")
    layer_norm: bool = Field(False, description="Hypernetwork: normalise the output of each layer.")
    dropout: tuple[float, ...] = Field(
        (), description="Hypernetwork: share of each layer dropped while training, one for each of sizes; none means 0."
    )

    @field_validator("sizes", "widths", "dropout", mode="before")
    @classmethod
    def _lists_may_be_text(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("sizes")
    @classmethod
    def _sizes_are_a_structure(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if fault := sizes_fault(value):
            raise PydanticCustomError("sizes", "{fault}", {"fault": fault})
        return value

    @field_validator("widths")
    @classmethod
    def _widths_are_possible(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(1 <= width <= MAX_WIDTH for width in value) or len(set(value)) != len(value):
            raise PydanticCustomError("widths", "must be different numbers from 1 to {most}", {"most": MAX_WIDTH})
        return value

    @field_validator("dropout")
    @classmethod
    def _dropout_fits(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        sizes = info.data.get("sizes")
        fault = dropout_fault(value, sizes) if value and sizes else ""
        if not fault and value and (value[0] or value[-1]):
            fault = "does not begin and end with 0"
        if fault:
            raise PydanticCustomError("dropout", "{fault}", {"fault": fault})
        return value


class Data(Group):
    """The pictures and what is said about them."""

    folder: str = Field(min_length=1, description="Folder of pictures: a path, or the name of a folder in datasets/.")
    template: str = Field(
        "subject_filewords",
        min_length=1,
        description="Prompt template: a name from templates/ or a path; one prompt a line.",
    )
    width: int | None = Field(
        None, ge=8, le=2048, multiple_of=8, description="Width in pixels; the model's own when absent."
    )
    height: int | None = Field(
        None, ge=8, le=2048, multiple_of=8, description="Height in pixels; the model's own when absent."
    )
    word_regex: str = Field(
        "", max_length=1000, description="Regular expression that picks caption words out of a file name."
    )
    word_join: str = Field(" ", max_length=100, description="Text put between the words that word_regex found.")
    live: bool = Field(
        True, description="Take new, changed and removed pictures and captions in at the next epoch while training."
    )

    @field_validator("word_regex")
    @classmethod
    def _regex_compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise PydanticCustomError("regex", "is not a regular expression: {why}", {"why": str(error)}) from None
        return value


class Train(Group):
    """How it is updated."""

    learn_rate: str = Field(
        "0.005",
        max_length=1000,
        description="Learning rate, or pairs rate:step (0.005:100, 1e-3:1000, 1e-5); a hypernetwork begins at 1e-5.",
    )
    steps: int = Field(500, ge=1, le=MAX_STEPS, description="Updates in all.")
    batch_size: int = Field(4, ge=1, le=1024, description="Pictures in one update.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's weight decay, per unit of learning rate.")
    precision: Precision = Field(
        "auto", description="Number format of the frozen model; what is trained is always float32."
    )
    checkpointing: Choice = Field(
        "auto", description="Compute the U-Net twice instead of keeping it in memory; auto: when it would not fit."
    )
    offload: Choice = Field(
        "auto", description="Keep the VAE off the device while it is not needed; auto: when memory is short."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of every draw: order, prompts, noise and timesteps.")

    @field_validator("learn_rate", mode="before")
    @classmethod
    def _numbers_are_text(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return repr(value) if is_number else value

    @field_validator("learn_rate")
    @classmethod
    def _schedule_parses(cls, value: str) -> str:
        try:
            parse_schedule(value, MAX_STEPS)
        except VocableError as error:
            raise PydanticCustomError("learn_rate", "{why}", {"why": str(error).rstrip(".")}) from None
        return value


class Save(Group):
    """What is written while training, and how often."""

    every: int = Field(100, ge=0, description="Steps between numbered copies; 0 turns them off.")
    images_every: int = Field(100, ge=0, description="Steps between previews; 0 turns them off.")
    checkpoint_every: int = Field(50, ge=1, description="Steps between checkpoints, from which a run resumes exactly.")
    csv_every: int = Field(1, ge=0, description="Steps between rows of the loss table (CSV); 0 turns it off.")
    embed_in_images: bool = Field(
        True, description="Put the latest embedding into each preview, so that the picture carries the word."
    )


class Preview(Group):
    """The pictures that show how training goes."""

    prompt: str = Field(
        "", max_length=10_000, description="Prompt, with [name] for the word; the last training prompt when empty."
    )
    negative_prompt: str = Field("", max_length=10_000, description="What the preview should not show.")
    sampler: Sampler = Field("DPM++ 2M", description="Sampler of the previews.")
    steps: int = Field(20, ge=1, le=500, description="Sampling steps.")
    cfg_scale: float = Field(7.0, ge=1, le=100, description="Guidance scale; 1 means no guidance.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the first preview; the next ones count up.")
    width: int | None = Field(
        None, ge=8, le=4096, multiple_of=8, description="Width in pixels; the training width when absent."
    )
    height: int | None = Field(
        None, ge=8, le=4096, multiple_of=8, description="Height in pixels; the training height when absent."
    )
    count: int = Field(1, ge=1, le=64, description="Pictures each time.")


class Recipe(Group):
    """Everything that decides a run."""

    kind: Kind = Field("embedding", description="What is trained: embedding (a word) or hypernetwork.")
    name: str = Field(description="The word, which is also the file's name; or the hypernetwork's name.")
    model: str = Field(
        "starter", min_length=1, max_length=4096, description="Base model: a name from models/, a path, or a hash."
    )
    start: Start = Field(default_factory=Start)
    data: Data
    train: Train = Field(default_factory=Train)
    save: Save = Field(default_factory=Save)
    preview: Preview = Field(default_factory=Preview)

    @field_validator("name")
    @classmethod
    def _name_is_lawful(cls, value: str) -> str:
        fault = name_fault(value)
        if fault:
            raise PydanticCustomError("name", "'{name}' {fault}", {"name": value, "fault": fault})
        return value

    @model_validator(mode="before")
    @classmethod
    def _kinds_have_defaults(cls, values: Any) -> Any:
        """What a hypernetwork begins with where nothing is said; the fields' own defaults are an embedding's."""
        if not isinstance(values, dict) or values.get("kind") != "hypernetwork":
            return values
        filled = dict(values)
        for group, defaults in _HYPERNETWORK_DEFAULTS.items():
            given = filled.get(group, {})
            filled[group] = {**defaults, **given} if isinstance(given, dict) else given
        return filled


def foreign_options(kind: str) -> tuple[str, ...]:
    """Fields of `start` that belong to the other kind: they have their defaults, and no file shows them."""
    return tuple(name for name in Start.model_fields if (name in EMBEDDING_START) != (kind == "embedding"))


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check nested plain values (from TOML, JSON or a form) and make a recipe of them.

    Raises:
        RecipeError: with every fault at once; an unknown key names the nearest known one.
    """
    foreign = list(_foreign_faults(values))
    try:
        recipe = Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise RecipeError([*map(_fault, error.errors()), *foreign]) from None
    if foreign:
        raise RecipeError(foreign)
    return recipe


def parse_recipe(text: str) -> Recipe:
    """Read a recipe from TOML text.

    Raises:
        RecipeError: the text is not TOML (path `line N`), or fields are wrong.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([Fault("recipe.toml", f"is not TOML: {error}")]) from None
    return build_recipe(values)


def format_recipe(recipe: Recipe) -> str:
    """Write a recipe as TOML with each field's description as a comment; `parse_recipe` reads it back."""
    document = tomlkit.document()
    values = recipe.model_dump(exclude_none=True, exclude={"start": set(foreign_options(recipe.kind))})
    for name, field in Recipe.model_fields.items():
        value = values[name]
        if isinstance(value, dict):
            document.add(tomlkit.nl())
            document.add(name, _format_group(getattr(recipe, name), value))
        else:
            document.add(tomlkit.comment(field.description or ""))
            document.add(name, value)
    return tomlkit.dumps(document)


def set_field(values: dict[str, Any], assignment: str) -> None:
    """Apply one `group.key=value` to nested plain values, in place; the value is TOML, or else plain text.

    Raises:
        RecipeError: the assignment has no `=`.
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError([Fault(assignment, "is not of the form group.key=value")])
    for key in keys[:-1]:
        nested = values.setdefault(key, {})
        if not isinstance(nested, dict):
            raise RecipeError([Fault(path.strip(), f"{key} is a value, not a group")])
        values = nested
    values[keys[-1]] = _read_value(text.strip(), keys[-1])


def iter_fields(group: type[Group] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield `(dotted path, description, default)` of every field, in the order of the recipe."""
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            yield from iter_fields(field.annotation, f"{prefix}{name}.")
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            yield f"{prefix}{name}", field.description or "", default


def _foreign_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Options of the other kind that say something else than nothing; a default does no harm."""
    kind, start = values.get("kind", "embedding"), values.get("start", {})
    if kind not in get_args(Kind) or not isinstance(start, Mapping):
        return
    for name in foreign_options(kind):
        if name in start and not _is_default(name, start[name]):
            other = "a hypernetwork" if kind == "embedding" else "an embedding"
            yield Fault(f"start.{name}", f"is an option of {other}; here kind is {kind}")


def _is_default(name: str, value: Any) -> bool:
    try:
        return bool(getattr(Start.model_validate({name: value}), name) == Start.model_fields[name].default)
    except ValidationError:
        return False


def _format_group(group: Group, values: Mapping[str, Any]) -> tomlkit.items.Table:
    table = tomlkit.table()
    for name, field in type(group).model_fields.items():
        if name in values:
            table.add(tomlkit.comment(field.description or ""))
            table.add(name, values[name])
    return table


def _read_value(text: str, key: str) -> Any:
    if key == "learn_rate":
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fault(details: ErrorDetails) -> Fault:
    location = [str(part) for part in details["loc"]]
    path = ".".join(location)
    if details["type"] == "extra_forbidden":
        known = [name for name, _, _ in iter_fields()] + [name for name in Recipe.model_fields]
        nearest = difflib.get_close_matches(path, known, n=1)
        return Fault(path, f"is not known; did you mean {nearest[0]}?" if nearest else "is not known")
    if details["type"] == "missing":
        return Fault(path, "is missing")
    message = details["msg"][:1].lower() + details["msg"][1:].split(", unable to parse")[0]
    given = details.get("input")
    if isinstance(given, str | int | float) and details["type"] not in (
        "name",
        "learn_rate",
        "sizes",
        "widths",
        "dropout",
    ):
        message += f", not {given!r}"
    return Fault(path, message)
