"""Draws without state: every random number comes from the run's seed and counters that say what it is for.

Used by dataset, training and evaluation. A run that is resumed, or whose batches are made in another order, so draws
the very same numbers. No torch until a torch generator is asked for.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *counters: int | str) -> int:
    """A seed of 63 bits for one draw; counters of differing kind, order or number never share one by construction."""
    text = json.dumps([seed, *counters])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def python_random(seed: int, *counters: int | str) -> random.Random:
    """A generator for choices: prompt lines, orders."""
    return random.Random(derive_seed(seed, *counters))


def torch_generator(seed: int, *counters: int | str) -> torch.Generator:
    """A generator on the CPU, whatever the device of the run, so that the device does not decide the numbers."""
    import torch

    return torch.Generator("cpu").manual_seed(derive_seed(seed, *counters))
