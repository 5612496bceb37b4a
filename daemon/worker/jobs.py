"""Short work: pictures, evaluations, new embeddings and hypernetworks. Used by the desk; imports torch.

Each kind of job is a generator that yields `(done, total)` and returns the result that the service passes on, so that
the desk can look at its inbox, and break the job off, at every step.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from daemon.protocol.hypernetworks import CreateHypernetwork
from daemon.protocol.jobs import CreateEmbedding, EvaluateRequest, GenerateRequest
from daemon.worker.models import Hypernetworks, LoadedModel, Words
from engine.dataset.templates import find_template, read_template
from engine.embedding.create import create_embedding
from engine.embedding.write import save_embedding
from engine.errors import VocableError
from engine.events import Warned
from engine.hypernetwork.create import create_hypernetwork
from engine.hypernetwork.write import save_hypernetwork
from engine.models.catalog import ModelEntry, find_model
from engine.models.load import Model
from engine.models.placement import choose_dtype
from engine.recipe import MAX_SEED
from engine.sampling.generate import PictureRequest, SamplingStep, generate
from engine.sampling.png import save_picture
from engine.text import escape
from engine.training.evaluate import evaluate

_Item = TypeVar("_Item")

Result = dict[str, Any]
Work = Generator[tuple[int, int], None, Result]


@dataclass(frozen=True)
class Places:
    """The supervisor's `settings`: folders in which names are looked up, and the cache of latents."""

    models: tuple[Path, ...]
    datasets: tuple[Path, ...]
    templates: tuple[Path, ...]
    latents: Path
    cache: Path | None = None
    """Keeps the hashes of models."""


@dataclass(frozen=True)
class Bench:
    """What jobs are done with."""

    places: Places
    models: LoadedModel
    words: Words
    hypernetworks: Hypernetworks
    is_training: bool
    """A run has the loaded model; whatever else is needed is loaded beside it."""


def make_pictures(bench: Bench, request: GenerateRequest) -> Work:
    """Result: `pictures`, the paths in the order of the prompts; `warnings`, sentences."""
    entry = find_model(request.model, bench.places.models, cache=bench.places.cache)
    asked = PictureRequest(
        pictures=tuple((prompt, seed) for prompt in request.prompts for seed in _seeds(request)),
        negative_prompt=request.negative_prompt,
        sampler=request.sampler,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        width=request.width or entry.size,
        height=request.height or entry.size,
        emphasis=request.emphasis,
        clip_skip=request.clip_skip,
        compat=request.compat,
    )
    paths = output_paths(Path(request.output), len(asked.pictures))
    written = 0
    warnings: list[str] = []
    with (
        _borrow(bench, entry) as model,
        ended(generate(model, asked, bench.words.for_model(entry), bench.hypernetworks.of_model(model))) as items,
    ):
        for item in items:
            if isinstance(item, SamplingStep):
                yield item.done, item.total
            elif isinstance(item, Warned):
                warnings.append(escape(f"{item.title} {item.hint}".strip()))
            else:
                save_picture(paths[written], item)
                written += 1
    return {"pictures": [str(path) for path in paths], "warnings": warnings}


def measure_phrases(bench: Bench, request: EvaluateRequest) -> Work:
    """Result: `losses`, in the order of the phrases."""
    entry = find_model(request.model, bench.places.models, cache=bench.places.cache)
    lines = read_template(find_template(request.template, bench.places.templates), needs_name=False)
    losses: list[float] = []
    with _borrow(bench, entry) as model:
        items = evaluate(
            model,
            folder=Path(request.folder),
            lines=lines,
            phrases=request.phrases,
            words=bench.words.for_model(entry),
            networks=bench.hypernetworks.of_model(model),
            width=request.width or entry.size,
            height=request.height or entry.size,
            seed=request.seed,
            latents=bench.places.latents,
        )
        with ended(items) as parts:
            for item in parts:
                if isinstance(item, tuple):
                    yield item
                else:
                    losses = item
    if not all(map(math.isfinite, losses)):
        title = f"The model {entry.name} gave NaN or infinity instead of a loss."
        raise VocableError("evaluation.not_finite", title, "Use other vectors, or a model in another precision.")
    return {"losses": losses}


def create_word(bench: Bench, request: CreateEmbedding, destination: Path) -> Work:
    """Result: `embedding`, the path."""
    entry = find_model(request.model, bench.places.models, cache=bench.places.cache)
    yield 0, 1
    with _borrow(bench, entry) as model:
        embedding = create_embedding(model, name=request.name, init_text=request.init_text, vectors=request.vectors)
    save_embedding(destination, embedding)
    yield 1, 1
    return {"embedding": str(destination)}


def create_network(bench: Bench, request: CreateHypernetwork, destination: Path) -> Work:
    """Result: `hypernetwork`, the path."""
    entry = find_model(request.model, bench.places.models, cache=bench.places.cache)
    yield 0, 1
    with _borrow(bench, entry) as model:
        network = create_hypernetwork(
            model,
            name=request.name,
            sizes=request.sizes,
            widths=request.widths,
            activation=request.activation,
            weight_init=request.init,
            layer_norm=request.layer_norm,
            dropout=request.dropout,
            seed=request.seed,
        )
    save_hypernetwork(destination, network)
    yield 1, 1
    return {"hypernetwork": str(destination)}


def output_paths(output: Path, count: int) -> Sequence[Path]:
    """One picture takes the very path; of several, the first is `NAME-1.png`, and so on."""
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{number}{output.suffix}") for number in range(1, count + 1)]


@contextmanager
def ended(items: Iterator[_Item]) -> Iterator[Iterator[_Item]]:
    """Close a generator of the engine on the way out, so that what it holds on the device is free at once."""
    try:
        yield items
    finally:
        if isinstance(items, Generator):
            items.close()


def _seeds(request: GenerateRequest) -> list[int]:
    return [(request.seed + number) % (MAX_SEED + 1) for number in range(request.count)]


def _borrow(bench: Bench, entry: ModelEntry) -> AbstractContextManager[Model]:
    dtype = choose_dtype("auto", bench.models.device)
    return bench.models.borrow(entry, dtype, beside=bench.is_training)
