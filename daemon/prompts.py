"""Counts what prompts take and says which words are found in them, as the worker will read them.

Used by the service; reading a prompt is done in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from daemon.hypernetworks import Wire, find_fitting
from daemon.inspector.facts import HypernetworkFacts, WordFacts
from daemon.library import Library
from daemon.protocol.words import TokensReply, TokensRequest
from daemon.targets import Targets, describe_entry
from engine.errors import VocableError
from engine.models.catalog import ModelEntry
from engine.names import fold_name, name_fault
from engine.prompt.count import count_prompt
from engine.prompt.layout import SLOTS, Lexicon
from engine.prompt.notes import note_prompts
from engine.prompt.parse import ParsedPrompt, parse_prompt
from engine.prompt.tags import read_hypernet
from engine.prompt.tokenizer import PromptTokenizer
from engine.text import escape

Words = list[dict[str, Any]]
"""The wire's `words`."""


class Prompts:
    """Reads prompts with the words and hypernetworks that there are.

    Args:
        targets: where models are found.
    """

    def __init__(
        self, library: Library[WordFacts], hypernetworks: Library[HypernetworkFacts], targets: Targets
    ) -> None:
        self._library = library
        self._hypernetworks = hypernetworks
        self._targets = targets
        self._lexicon: tuple[Words, PromptTokenizer, ModelEntry, Lexicon, Words] | None = None

    async def count(self, request: TokensRequest, model: str) -> TokensReply:
        """Count a prompt for the model of this reference.

        Raises:
            VocableError: `request.invalid` for `new_words` that cannot be; `model.*`.
        """
        _check_new_words(request.new_words)
        entry, tokenizer = await self._targets.tokenizer(model)
        return await asyncio.to_thread(self._count, request, entry, tokenizer, self._library.usable())

    def _count(
        self, request: TokensRequest, entry: ModelEntry, tokenizer: PromptTokenizer, words: Words
    ) -> TokensReply:
        lexicon, known = self._find_lexicon(words, tokenizer, entry)
        if request.new_words:
            lexicon = Lexicon(tokenizer, [*request.new_words.items(), *_counted(known)])
        parsed = parse_prompt(request.prompt, lexicon, steps=request.steps)
        counted = count_prompt(parsed)
        fitting = find_fitting(self._hypernetworks.usable(), describe_entry(entry))
        return TokensReply(
            model=escape(entry.name, 200),
            count=counted.count,
            limit=counted.limit,
            chunks=list(counted.chunks),
            words=list(parsed.words),
            hypernetworks=[fitting[name]["name"] for name in _named(parsed) if name in fitting],
            notes=_notes(parsed, known, request.new_words, entry, fitting),
        )

    def _find_lexicon(self, words: Words, tokenizer: PromptTokenizer, entry: ModelEntry) -> tuple[Lexicon, Words]:
        """The lexicon of a model, kept while the library and the model stay the same."""
        kept = self._lexicon
        if kept is not None and kept[0] is words and kept[1] is tokenizer and kept[2] == entry:
            return kept[3], kept[4]
        known = [word for word in words if (word["width"], word["split"]) == (entry.width, entry.split)]
        lexicon = Lexicon(tokenizer, _counted(known))
        self._lexicon = (words, tokenizer, entry, lexicon, known)
        return lexicon, known


def _counted(words: Words) -> Iterable[tuple[str, int]]:
    """What a lexicon takes; a word that no chunk holds is not found, as the worker would refuse the prompt."""
    return [(word["name"], word["vectors"]) for word in words]


def _check_new_words(words: Mapping[str, int]) -> None:
    for name, vectors in words.items():
        fault = name_fault(name)
        if fault:
            raise VocableError("request.invalid", f"new_words: '{escape(name, 80)}' {fault}.", "Choose another name.")
        if not 1 <= vectors <= SLOTS:
            title = f"new_words: '{name}' has {vectors} vectors; 1 to {SLOTS} are possible."
            raise VocableError("request.invalid", title)


def _named(parsed: ParsedPrompt) -> list[str]:
    """Names in the tags of hypernetworks, each once, as they are compared."""
    return list(dict.fromkeys(fold_name(named.name) for named in map(read_hypernet, parsed.tags) if named))


def _notes(
    parsed: ParsedPrompt, words: Words, new_words: Mapping[str, int], entry: ModelEntry, fitting: Mapping[str, Wire]
) -> list[str]:
    found = set(parsed.words) - set(new_words)
    origins = {word["name"]: (word["model"], word["model_hash"]) for word in reversed(words) if word["name"] in found}
    networks = {name: (network["model"], network["model_hash"]) for name, network in fitting.items()}
    return [f"{note.title} {note.hint}".strip() for note in note_prompts([parsed], origins, entry, networks)]
