"""What people should know of prompts before they are used. No torch; told by the token counter and before sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from engine.events import Warned
from engine.models.catalog import ModelEntry, other_model
from engine.names import fold_name
from engine.prompt.parse import ParsedPrompt
from engine.prompt.tags import Tag, is_hypernet, read_hypernet
from engine.text import escape

Origins = Mapping[str, tuple[str, str]]
"""Name and hash of the base model that something was trained on, by its own name; both may be empty."""


def note_prompts(
    prompts: Sequence[ParsedPrompt],
    origins: Origins,
    model: ModelEntry,
    hypernetworks: Origins = MappingProxyType({}),
) -> Iterator[Warned]:
    """Each thing once: names of nothing, tags without effect, what was made for another model.

    Args:
        origins: of words; those without an entry are taken for the model's own.
        hypernetworks: those that the model can use, by their names as `fold_name` gives them.
    """
    for name in dict.fromkeys(name for prompt in prompts for name in prompt.unknown):
        title = f"There is no word '{escape(name, 80)}' that this model can use; it is left out."
        yield Warned("prompt.unknown_word", title, "`vocable words` lists the words and what is wrong with each.")
    for tag in dict.fromkeys(tag for prompt in prompts for tag in prompt.tags):
        yield from _note_tag(tag, hypernetworks, model)
    for name in dict.fromkeys(name for prompt in prompts for name in prompt.words):
        yield from _note_origin(f"The word '{name}'", origins.get(name, ("", "")), model)


def _note_tag(tag: Tag, hypernetworks: Origins, model: ModelEntry) -> Iterator[Warned]:
    shown = escape(f"<{':'.join((tag.kind, *tag.arguments))}>", 200)
    named = read_hypernet(tag)
    if named is None:
        form = "<hypernet:NAME:STRENGTH> takes a number" if is_hypernet(tag) else ""
        form = form or "of tags only <embedding:...> and <hypernet:...> are understood"
        yield Warned("prompt.tag", f"{shown} has no effect: {form}.")
        return
    origin = hypernetworks.get(fold_name(named.name))
    if origin is None:
        title = f"There is no hypernetwork '{escape(named.name, 80)}' that this model can use; it is left out."
        hint = "`vocable hypernet list` lists them and what is wrong with each."
        yield Warned("prompt.unknown_hypernetwork", title, hint)
        return
    yield from _note_origin(f"The hypernetwork '{escape(named.name, 80)}'", origin, model)


def _note_origin(what: str, origin: tuple[str, str], model: ModelEntry) -> Iterator[Warned]:
    trained_on, digest = origin
    other = other_model(trained_on, digest, name=model.name, hash=model.hash)
    if other:
        title = f"{what} was trained on {escape(other, 250)}, not on {escape(model.name, 100)}."
        yield Warned("prompt.other_model", title, "It may show something else than it does there.")
