"""Composition: prompts joined by `AND`, each with a weight. Called by `engine.prompt.parse` for positive prompts.

Liu et al. 2022, Compositional Visual Generation with Composable Diffusion Models; the notation is that of
AUTOMATIC1111's webui.
"""

from __future__ import annotations

import math
import re

from engine.prompt.attention import DECIMAL

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(DECIMAL)


def split_composition(text: str) -> list[tuple[str, float]]:
    """The texts around each `AND` with their weights: the number behind a colon at the end, else 1."""
    return [_take_weight(part) for part in _AND.split(text)]


def _take_weight(text: str) -> tuple[str, float]:
    head, colon, tail = text.rpartition(":")
    if colon and _WEIGHT.fullmatch(tail.strip()) and math.isfinite(float(tail)):
        return head.rstrip(), float(tail)
    return text.rstrip(), 1.0
