"""From what a picture says of itself to the request that makes it again. Pure but for the look at the models folders.

Used by the service, in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon.protocol.jobs import GenerateRequest
from daemon.protocol.words import ParametersReply
from engine.errors import VocableError
from engine.models.catalog import STARTER, find_model
from engine.names import fold_name
from engine.sampling.infotext import Parameters, parse_parameters, word_hashes
from engine.sampling.reuse import request_fields
from engine.text import escape

_MAX_LINES = 1000


def recreate(text: str, picture: Path, models: Sequence[Path], words: Sequence[Mapping[str, Any]]) -> ParametersReply:
    """Read a picture's text.

    Args:
        picture: path of the picture; the request writes beside it.
        models: folders of base models.
        words: the wire's `words`.
    """
    parameters = parse_parameters(text)
    fields, notes = request_fields(parameters)
    model, model_notes = _find_model(parameters, models)
    output = picture.with_name(f"{picture.stem}-again.png")
    request = GenerateRequest(**fields, model=model, output=str(output))
    lines = text.splitlines()[:_MAX_LINES]
    return ParametersReply(
        text="\n".join(escape(line, 10_000) for line in lines),
        request=request,
        notes=notes + model_notes + _word_notes(parameters, words),
    )


def _find_model(parameters: Parameters, models: Sequence[Path]) -> tuple[str, list[str]]:
    """The model that the picture names, by hash if it is here, else by name, else the starter."""
    name, digest = parameters.settings.get("Model", ""), parameters.settings.get("Model hash", "").lower()
    found = _find(digest, models) if len(digest) >= 10 else None
    if found:
        return found[0], []
    found = _find(name, models) if "/" not in name else None
    if found is None:
        if not name and not digest:
            return STARTER, ["The picture does not say which model made it; the starter is used."]
        wanted = escape(" ".join(part for part in (name, f"[{digest}]" if digest else "") if part), 200)
        return STARTER, [f"The model {wanted} is not here; the starter is used."]
    if len(digest) >= 10 and found[1] and digest[:10] != found[1]:
        shown = escape(name, 100)
        return name, [f"The model '{shown}' has the hash {found[1]} here, not {escape(digest, 64)}."]
    return name, []


def _find(reference: str, models: Sequence[Path]) -> tuple[str, str] | None:
    """Name and hash of a model of the folders; the hash is empty while it is not known."""
    if not reference:
        return None
    try:
        # Somebody waits for the answer: files of gigabytes are not hashed for it.
        entry = find_model(reference, models, wait=False)
    except VocableError:
        return None
    return entry.name, entry.hash


def _word_notes(parameters: Parameters, words: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which of the words that the picture used are others here, or none at all."""
    here: dict[str, set[str]] = {}
    for word in words:
        here.setdefault(_plain(word["name"]), set()).add(word["hash"][:12])
    notes = []
    for name, digest in word_hashes(parameters).items():
        known = here.get(_plain(name), set())
        if not known:
            notes.append(f"The word '{escape(name, 80)}' is not here; it stands in the prompt as text.")
        elif digest and digest not in known:
            hashes = f"{escape(digest, 12)} then, {', '.join(sorted(known))} now"
            notes.append(f"The word '{escape(name, 80)}' is another one here ({hashes}).")
    return notes


def _plain(name: str) -> str:
    """As `TI hashes` spells names, which has no commas and colons."""
    return fold_name(name.replace(",", "").replace(":", ""))
