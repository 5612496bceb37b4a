"""From a request to the pictures to make: prompts parsed, their words read, and what people should know beforehand.

Called by `generate` before its first step. Every distinct prompt is parsed once, and of all words only those that a
prompt uses are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from engine.embedding.shelf import Word
from engine.events import Warned
from engine.hypernetwork.family import check_family
from engine.hypernetwork.network import Network, load_network
from engine.hypernetwork.shelf import Chain, StoredNetwork, chain_of, fold_shelf
from engine.models.load import Model
from engine.prompt.conditioning import condition
from engine.prompt.encode import check_clip_skip, check_width
from engine.prompt.layout import Lexicon
from engine.prompt.notes import note_prompts
from engine.prompt.parse import ParsedPrompt, Part, entry_at, parse_prompt
from engine.recipe import Emphasis
from engine.sampling.guidance import Course
from engine.sampling.samplers import find_sampler

_FIXED_LAYER = {"sd2": "SD 2.x", "sdxl": "SDXL"}
"""Families whose text encoders are used at one layer only."""


@dataclass(frozen=True)
class PictureRequest:
    pictures: tuple[tuple[str, int], ...]
    """Prompt and seed of each picture."""
    negative_prompt: str
    sampler: str
    steps: int
    cfg_scale: float
    """Guidance scale; at 1 the negative prompt is not used and a step costs half."""
    width: int
    """In pixels, as is height; a multiple of the model's latent factor."""
    height: int
    emphasis: Emphasis = "Original"
    clip_skip: int = 1
    """Layer of the text encoder that is used, counted from its end."""
    compat: str = ""
    """`webui`: switches of prompts count calls of the U-Net, from 0."""


@dataclass(frozen=True)
class Order:
    """One picture to make."""

    prompt: str
    seed: int
    parsed: ParsedPrompt
    is_guided: bool
    """Whether the negative prompt plays a part in it."""
    networks: Chain = ()
    """Hypernetworks that its prompt names; they change what is computed for the negative prompt too."""

    def kind(self) -> tuple[int, int, bool, Chain]:
        """What pictures of one batch have in common: chunks of the longest part, parts, guidance, hypernetworks."""
        chunks = max(len(entry.chunks) for part in self.parsed.parts for entry in part.entries)
        return chunks, len(self.parsed.parts), self.is_guided, self.networks


@dataclass(frozen=True)
class Plan:
    """All that is known before the first step."""

    request: PictureRequest
    orders: tuple[Order, ...]
    negative: ParsedPrompt
    words: Mapping[str, Word]
    """Those that the prompts use, by name."""
    clip_skip: int
    """As it is for this model."""
    warnings: tuple[Warned, ...]
    vectors: Mapping[str, NDArray[np.float32]]
    """[V, D] of each."""
    networks: Mapping[str, Network]
    """The hypernetworks that the prompts use, by name, on the model's device."""

    def chain_of(self, order: Order) -> list[tuple[Network, float]]:
        """The hypernetworks of one picture with their strengths, in the order in which they work."""
        return [(self.networks[name], strength) for name, strength in order.networks]

    def words_of(self, order: Order) -> dict[str, Word]:
        """The words that one picture shows: its prompt's, then the negative prompt's."""
        names = [*order.parsed.words, *(self.negative.words if order.is_guided else ())]
        return {name: self.words[name] for name in names}


def make_plan(
    model: Model, request: PictureRequest, words: Sequence[Word], networks: Sequence[StoredNetwork] = ()
) -> Plan:
    """Parse the prompts and read the words and hypernetworks that they use.

    Raises:
        VocableError: `sampler.unknown`, `picture.clip_skip`, `embedding.width`, `embedding.too_long`,
            `hypernetwork.model`, or what keeps a word or hypernetwork from being read.
    """
    shelf = fold_shelf(networks)
    lexicon = Lexicon(model.tokenizer, [(word.name, word.vectors) for word in words])
    steps = request.steps * (find_sampler(request.sampler).calls_per_step if request.compat == "webui" else 1)
    texts = dict.fromkeys(prompt for prompt, _ in request.pictures)
    parsed = {text: parse_prompt(text, lexicon, steps=steps, emphasis=request.emphasis) for text in texts}
    orders = tuple(
        Order(
            prompt,
            seed,
            parsed[prompt],
            _is_guided(parsed[prompt], request.cfg_scale),
            chain_of(parsed[prompt].tags, shelf),
        )
        for prompt, seed in request.pictures
    )
    # Where it plays no part it is not looked at, so that it can neither fail nor warn.
    text = request.negative_prompt if any(order.is_guided for order in orders) else ""
    negative = parse_prompt(text, lexicon, steps=steps, emphasis=request.emphasis, negative=True)
    prompts = [*parsed.values(), negative]
    known = {word.name: word for word in reversed(words)}
    used = {name: known[name] for prompt in prompts for name in prompt.words}
    for name, word in used.items():
        check_width(name, word.width, model)
    clip_skip = 1 if model.entry.family in _FIXED_LAYER else request.clip_skip
    check_clip_skip(model, clip_skip)
    origins = {name: (word.model, word.model_hash) for name, word in used.items()}
    made_on = {name: (network.model, network.model_hash) for name, network in shelf.items()}
    warnings = list(note_prompts(prompts, origins, model.entry, made_on))
    if clip_skip != request.clip_skip:
        family = _FIXED_LAYER[model.entry.family]
        title = f"CLIP skip {request.clip_skip} has no effect: {model.entry.name} is of the {family} family."
        warnings.append(Warned("prompt.clip_skip", title))
    vectors = {name: word.load().vectors for name, word in used.items()}
    loaded = _load_networks(model, orders, networks)
    return Plan(request, orders, negative, used, clip_skip, tuple(warnings), vectors, loaded)


def _load_networks(model: Model, orders: Sequence[Order], shelf: Sequence[StoredNetwork]) -> dict[str, Network]:
    """Those that the orders use; each is read once, and none where none is used."""
    used = {name for order in orders for name, _ in order.networks}
    if used:
        check_family(model.entry)
    stored = {network.name: network for network in reversed(shelf)}
    return {name: load_network(stored[name].load(), model.device) for name in sorted(used)}


def _is_guided(prompt: ParsedPrompt, scale: float) -> bool:
    """Without guidance the one part of a plain prompt is all there is to predict."""
    return scale != 1 or len(prompt.parts) > 1 or prompt.parts[0].weight != 1


def make_batches(orders: Sequence[Order], size: int) -> list[list[Order]]:
    """Cut the orders into batches of alike pictures: padding would make a picture depend on its neighbours.

    Args:
        size: pictures of one part in a batch; of pictures with more parts fewer, for the U-Net sees each part.
    """
    batches: list[list[Order]] = []
    for (_, parts, *_), alike in groupby(orders, key=Order.kind):
        group = list(alike)
        step = max(1, 2 * size // (parts + 1))
        batches += [group[start : start + step] for start in range(0, len(group), step)]
    return batches


def chart(model: Model, plan: Plan, part: Part, calls: int) -> Course:
    """Lay a part's schedule out over the calls of the U-Net, and encode what it says.

    Args:
        calls: of the U-Net, all in all; a sampler of second order makes two of them a step.
    """
    texts = Counter(entry.chunks for entry in part.entries)
    rows = {chunks: row for row, chunks in enumerate(texts)}
    per_step = find_sampler(plan.request.sampler).calls_per_step
    compat = plan.request.compat
    steps = (call + 1 if compat == "webui" else call // per_step + 1 for call in range(calls))
    held = {id(entry): rows[entry.chunks] for entry in part.entries}
    conditioning = condition(
        model,
        list(texts),
        plan.vectors,
        shares=tuple(texts.values()),
        emphasis=plan.request.emphasis,
        clip_skip=plan.clip_skip,
    )
    return Course(conditioning, tuple(held[id(entry_at(part, step, compat=compat))] for step in steps), part.weight)
