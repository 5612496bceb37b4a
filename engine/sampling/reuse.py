"""From what a picture says of itself to the request that makes it again, with notes on what cannot be carried over.

Called in the inspector and the service; no torch. Texts are foreign: they are shown escaped, and numbers that a request
does not take are left out and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from engine.recipe import MAX_SEED, Emphasis
from engine.sampling.infotext import PROGRAM, SWITCHING, Parameters, join_sampler
from engine.text import escape

_USED = {
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size-1", "Size-2", "Clip skip", "Emphasis"),
    *("RNG", SWITCHING, "Hypernet", "Hypernet strength"),
}
_TELLING = {
    *("Model", "Model hash", "Version", "User", "TI hashes", "Lora hashes", "Hypernet hash", "VAE hash", "Hashes"),
    *("Batch size", "Batch pos", "Size", "Prompt", "Negative prompt"),
}
"""Fields that tell of a picture and do not change it."""

MAX_NEGATIVE = 10_000
"""Characters that a request takes."""

_NAMED = 8
"""Fields that one note names before it counts the rest."""


def request_fields(parameters: Parameters) -> tuple[dict[str, Any], list[str]]:
    """Fields of a `GenerateRequest`, all but model and output, and sentences on what was left out.

    What the picture does not say is not among the fields and takes the request's default.
    """
    settings = parameters.settings
    notes: list[str] = []
    fields: dict[str, Any] = {
        "prompts": [_with_hypernetwork(parameters.prompt, settings)],
        "negative_prompt": parameters.negative_prompt,
    }
    if len(parameters.negative_prompt) > MAX_NEGATIVE:
        fields["negative_prompt"] = ""
        notes.append(f"The negative prompt is left out: it is longer than {MAX_NEGATIVE} characters.")
    if not settings:
        return fields, [*notes, "The picture says nothing of its sampler, steps, size and seed."]
    fields |= _sampler(settings, notes)
    fields |= _number(settings, "Steps", "steps", int, 1, 500, notes)
    fields |= _number(settings, "CFG scale", "cfg_scale", float, 1, 100, notes)
    fields |= _number(settings, "Seed", "seed", int, 0, MAX_SEED, notes)
    fields |= _number(settings, "Size-1", "width", int, 8, 4096, notes, multiple_of=8)
    fields |= _number(settings, "Size-2", "height", int, 8, 4096, notes, multiple_of=8)
    fields |= _number(settings, "Clip skip", "clip_skip", int, 1, 12, notes)
    fields |= _emphasis(settings, notes)
    fields["compat"] = _compat(parameters)
    notes += _differences(settings)
    return fields, notes


def is_ours(settings: Mapping[str, str]) -> bool:
    """Whether Vocable wrote the text."""
    return settings.get("Version", "").split(" ")[0] == PROGRAM


def _with_hypernetwork(prompt: str, settings: Mapping[str, str]) -> str:
    """Texts of before 2023 name the hypernetwork in fields instead of a tag."""
    name, strength = settings.get("Hypernet", ""), settings.get("Hypernet strength", "1.0")
    if not name or name == "None" or any(sign in name + strength for sign in ":<>"):
        return prompt
    return f"{prompt}<hypernet:{name}:{strength}>"


def _sampler(settings: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    name, schedule = settings.get("Sampler", ""), settings.get("Schedule type", "")
    if not name:
        return {}
    found = join_sampler(name, schedule)
    if found is not None:
        return {"sampler": found}
    shown = escape(f"{name} {schedule}".strip(), 100)
    nearest = join_sampler(name, "")
    if nearest is None:
        notes.append(f"The sampler '{shown}' is not known here; the usual one is used.")
        return {}
    notes.append(f"The sampler '{shown}' is not known here; {nearest} is used.")
    return {"sampler": nearest}


def _number(
    settings: Mapping[str, str],
    key: str,
    name: str,
    kind: Callable[[str], float],
    least: float,
    most: float,
    notes: list[str],
    *,
    multiple_of: int = 1,
) -> dict[str, Any]:
    text = settings.get(key)
    if text is None:
        return {}
    try:
        number = kind(text)
    except (ValueError, OverflowError):
        number = float("nan")
    if least <= number <= most and (multiple_of == 1 or number % multiple_of == 0):
        return {name: number}
    wanted = f"{least} to {most}" + (f" in steps of {multiple_of}" if multiple_of > 1 else "")
    notes.append(f"{key.partition('-')[0]} '{escape(text, 40)}' is left out: {wanted} is possible.")
    return {}


def _emphasis(settings: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    mode = settings.get("Emphasis", "Original")
    if mode in get_args(Emphasis):
        return {"emphasis": mode}
    notes.append(f"Emphasis '{escape(mode, 40)}' is not known here; Original is used.")
    return {}


def _compat(parameters: Parameters) -> str:
    """How prompts switch: as the text says if it is ours, else one step late, as everywhere else."""
    if is_ours(parameters.settings):
        return "webui" if parameters.settings.get(SWITCHING) == "webui" else ""
    return "webui" if "[" in parameters.prompt + parameters.negative_prompt else ""


def _differences(settings: Mapping[str, str]) -> list[str]:
    notes = []
    if settings.get("RNG", "GPU") != "CPU" and "Seed" in settings:
        notes.append("Its noise was not drawn on a CPU, so the same seed gives another picture here.")
    foreign = [f"{key}: {value}" for key, value in settings.items() if key not in _USED | _TELLING]
    if foreign:
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        shown = ", ".join(escape(setting, 80) for setting in foreign[:_NAMED])
        notes.append(f"Left out, because nothing here does the like: {shown}{more}.")
    return notes
