"""The `parameters` text of a picture, in the order and quoting of AUTOMATIC1111's webui, which other programs read.

Called by `generate`. Fields that do not apply are left out, as there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version

from engine.embedding.vectors import Embedding
from engine.embedding.write import hash_embedding
from engine.models.catalog import ModelEntry
from engine.sampling.samplers import find_sampler


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
    words: Sequence[Embedding],
) -> str:
    """Write what is needed to make one picture again; `words` are those that its prompts use."""
    schedule = find_sampler(sampler).schedule
    hashes = ", ".join(f"{_plain(word.name)}: {hash_embedding(word)}" for word in words)
    fields: dict[str, str | int | float | None] = {
        "Steps": steps,
        "Sampler": sampler.removesuffix(f" {schedule}") if schedule else sampler,
        "Schedule type": schedule or None,
        "CFG scale": f"{cfg_scale:g}",
        "Seed": seed,
        "Size": f"{width}x{height}",
        "Model hash": model.hash,
        "Model": model.name,
        "RNG": "CPU",
        "TI hashes": hashes or None,
        "Version": f"vocable {version('vocable')}",
    }
    settings = ", ".join(f"{key}: {_quote(str(value))}" for key, value in fields.items() if value is not None)
    negative = f"Negative prompt: {negative_prompt}\n" if negative_prompt else ""
    return f"{prompt}\n{negative}{settings}"


def _plain(name: str) -> str:
    return name.replace(",", "").replace(":", "")


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(sign in value for sign in ",:\n") else value
