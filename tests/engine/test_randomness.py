from __future__ import annotations

import torch

from engine.randomness import derive_seed, python_random, torch_generator


def test_the_same_counters_give_the_same_numbers_for_ever() -> None:
    assert derive_seed(0, "noise", 1, 2) == 8137299257864103450
    assert python_random(0, "order", 1).random() == python_random(0, "order", 1).random()
    first, second = (torch.randn(4, generator=torch_generator(7, "noise", 3)) for _ in range(2))
    assert torch.equal(first, second)


def test_counters_of_differing_place_kind_and_number_never_meet() -> None:
    seeds = {
        derive_seed(*counters) for counters in [(1, 2), (12,), (1, "2"), (1, 2, 0), (2, 1), (1, 23), (1, "2", "3")]
    }
    assert len(seeds) == 7


def test_drawing_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    torch.randn(4, generator=torch_generator(7, "noise", 3))
    assert torch.equal(before, torch.get_rng_state())
