"""What people should know of prompts before they are used. No torch; told by the token counter and before sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.events import Warned
from engine.models.catalog import ModelEntry, other_model
from engine.prompt.parse import ParsedPrompt
from engine.text import escape


def note_prompts(
    prompts: Sequence[ParsedPrompt], origins: Mapping[str, tuple[str, str]], model: ModelEntry
) -> Iterator[Warned]:
    """Each thing once: words that do not exist, tags without effect, words that were made for another model.

    Args:
        origins: name and hash of the base model that a word was trained on, by the word's name; words without an entry
            are taken for the model's own.
    """
    for name in dict.fromkeys(name for prompt in prompts for name in prompt.unknown):
        title = f"There is no word '{escape(name, 80)}' that this model can use; it is left out."
        yield Warned("prompt.unknown_word", title, "`vocable words` lists the words and what is wrong with each.")
    for tag in dict.fromkeys(tag for prompt in prompts for tag in prompt.tags):
        shown = escape(f"<{':'.join((tag.kind, *tag.arguments))}>", 200)
        yield Warned("prompt.tag", f"{shown} has no effect: of tags only <embedding:...> is understood.")
    for name in dict.fromkeys(name for prompt in prompts for name in prompt.words):
        trained_on, digest = origins.get(name, ("", ""))
        other = other_model(trained_on, digest, name=model.name, hash=model.hash)
        if other:
            title = f"The word '{name}' was trained on {escape(other, 250)}, not on {escape(model.name, 100)}."
            yield Warned("prompt.other_model", title, "It may show something else than it does there.")
