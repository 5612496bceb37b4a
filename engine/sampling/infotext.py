"""The `parameters` text of a picture, in the order and quoting of AUTOMATIC1111's webui, which other programs read.

Written by `generate`, read by the inspector; no torch. Fields that do not apply are left out, as there. Reading takes
any text and never fails: what does not look like settings is prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final, get_args

from engine.models.catalog import ModelEntry
from engine.recipe import Sampler

PROGRAM = "vocable"
"""First word of our `Version`."""

SWITCHING: Final = "Prompt switching"
"""Field that holds a request's `compat`; other programs pass over fields that they do not know."""

SCHEDULES = ("Karras",)
"""Noise levels that stand behind a sampler's name here and in a field of their own there."""

_UNIFORM = {"DPM++ 2M": "Uniform"}
"""Samplers for which webui, where no schedule is named, takes other noise levels (Karras) than ours: the model's."""

_NEGATIVE = "Negative prompt:"
_FEWEST_SETTINGS = 3
_SETTING = re.compile(r'(\w[\w \-/]{1,100}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""webui.md 9, but a name is of bounded length, so that no text takes quadratic time."""
_SIZE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Parameters:
    """What a picture's text says."""

    prompt: str
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Field by field, in their order; `Size: 64x48` is `Size-1: 64` and `Size-2: 48`. Empty when there are none."""


def format_parameters(
    *,
    prompt: str,
    negative_prompt: str,
    sampler: str,
    steps: int,
    cfg_scale: float,
    seed: int,
    width: int,
    height: int,
    model: ModelEntry,
    hashes: Mapping[str, str],
    emphasis: str = "Original",
    clip_skip: int = 1,
    compat: str = "",
) -> str:
    """Write what is needed to make one picture again.

    Args:
        hashes: SHA-256 of each word's file in hex, by name: the prompt's words, then the negative prompt's.
    """
    name, schedule = split_sampler(sampler)
    named = ", ".join(f"{_plain(word)}: {digest[:12]}" for word, digest in hashes.items())
    fields: dict[str, str | int | None] = {
        "Steps": steps,
        "Sampler": name,
        "Schedule type": schedule or None,
        "CFG scale": _decimal(cfg_scale),
        "Seed": seed,
        "Size": f"{width}x{height}",
        "Model hash": model.hash,
        "Model": model.name,
        "Clip skip": clip_skip if clip_skip > 1 else None,
        "RNG": "CPU",
        "TI hashes": named or None,
        "Emphasis": emphasis if emphasis != "Original" else None,
        SWITCHING: compat or None,
        "Version": f"{PROGRAM} {version('vocable')}",
    }
    settings = ", ".join(_setting(key, str(value)) for key, value in fields.items() if value is not None)
    negative = f"{_NEGATIVE} {negative_prompt}\n" if negative_prompt else ""
    return f"{prompt}\n{negative}{settings}"


def parse_parameters(text: str) -> Parameters:
    """Read a picture's text. The last line counts as settings only if it holds at least three of them."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    pairs = _SETTING.findall(lines[-1])
    if len(pairs) < _FEWEST_SETTINGS:
        pairs = []
    else:
        lines.pop()
    begin = next((number for number, line in enumerate(lines) if line.lstrip().startswith(_NEGATIVE)), len(lines))
    prompt, negative = lines[:begin], "\n".join(lines[begin:]).lstrip().removeprefix(_NEGATIVE)
    settings: dict[str, str] = {}
    for key, value in pairs:
        settings |= _read_setting(key.strip(), value)
    return Parameters("\n".join(prompt).strip(), negative.strip(), settings)


def split_sampler(name: str) -> tuple[str, str]:
    """A sampler of ours as webui names it: the sampler, and its schedule or nothing."""
    for schedule in SCHEDULES:
        if name.endswith(f" {schedule}"):
            return name.removesuffix(f" {schedule}"), schedule
    return name, _UNIFORM.get(name, "")


def join_sampler(name: str, schedule: str) -> str | None:
    """The sampler of ours that webui's names mean, in any case; None when there is none.

    `Automatic` noise levels are those that webui takes for the sampler by itself.
    """
    known = {sampler.casefold(): sampler for sampler in get_args(Sampler)}
    wanted, levels = name.strip().casefold(), schedule.strip().casefold()
    if levels == "automatic" and wanted in {sampler.casefold() for sampler in _UNIFORM}:
        levels = SCHEDULES[0].casefold()
    return known.get(wanted if levels in ("", "automatic", "uniform") else f"{wanted} {levels}")


def word_hashes(parameters: Parameters) -> dict[str, str]:
    """The words that the picture's prompts used, with the first 12 hex digits of their files' SHA-256."""
    pairs = (pair.rpartition(":") for pair in parameters.settings.get("TI hashes", "").split(","))
    return {name.strip(): digest.strip().lower() for name, sign, digest in pairs if sign and name.strip()}


def _decimal(number: float) -> str:
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _plain(name: str) -> str:
    return name.replace(",", "").replace(":", "")


def _setting(key: str, value: str) -> str:
    quoted = json.dumps(value, ensure_ascii=False) if any(sign in value for sign in ",:\n") else value
    return key if key == value else f"{key}: {quoted}"


def _read_setting(key: str, value: str) -> dict[str, str]:
    if value.startswith('"'):
        try:
            value = str(json.loads(value))
        except ValueError:
            value = value.strip('"')
    value = value.strip()
    size = _SIZE.fullmatch(value)
    return {f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: value}
