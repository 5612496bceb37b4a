"""What a hypernetwork does to a context, against the reference of `networks`, which is made of torch's own modules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import VocableError
from engine.hypernetwork.network import change_context, load_network, output_of
from engine.hypernetwork.network_file import check_network
from engine.hypernetwork.read import read_hypernetwork
from engine.hypernetwork.structure import ACTIVATIONS, UNUSABLE_ACTIVATIONS
from tests.engine.hypernetwork.networks import make_file, reference_context, save_as, webui_values

CPU = torch.device("cpu")


def context(width: int = 16, seed: int = 1) -> Tensor:
    return torch.randn((2, 5, width), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_is_the_reference_s(activation: str) -> None:
    values = webui_values(make_file(activation=activation, activate_output=True))
    network = load_network(read_hypernetwork(save_as(values, zipped=True), "ink"), CPU)
    for side, name in enumerate(("k", "v")):
        ours = change_context(network, name, context(), 0.7)  # type: ignore[arg-type]
        torch.testing.assert_close(ours, reference_context(values, side, context(), 0.7), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"sizes": (1.0, 1.0)},
        {"sizes": (1.0, 0.5, 1.5, 3.0, 1.0), "activation": "mish"},
        {"layer_norm": True},
        {"layer_norm": True, "activate_output": True, "activation": "prelu"},
        {"sizes": (1.0, 2.0, 2.0, 1.0), "dropout": (0.0, 0.3, 0.3, 0.0)},
        {"sizes": (1.0, 2.0, 2.0, 1.0), "dropout": (0.0, 0.0, 0.5, 0.5), "layer_norm": True, "activation": "linear"},
    ],
)
def test_each_structure_is_the_reference_s(fields: dict[str, Any]) -> None:
    values = webui_values(make_file(**fields))
    network = load_network(read_hypernetwork(save_as(values, zipped=False), "ink"), CPU)
    for width in (16, 24):
        ours = change_context(network, "k", context(width), -1.5)
        torch.testing.assert_close(ours, reference_context(values, 0, context(width), -1.5), atol=1e-6, rtol=1e-6)


def test_a_width_without_a_module_passes_unchanged() -> None:
    network = load_network(make_file(), CPU)
    other = context(20)
    assert change_context(network, "k", other) is other
    assert output_of(network, "v", other) is None


def test_halves_are_computed_in_float32_and_cast_back() -> None:
    network = load_network(make_file(), CPU)
    half = context().to(torch.bfloat16)
    changed = change_context(network, "v", half, 0.5)
    assert changed.dtype == torch.bfloat16
    assert torch.equal(changed, change_context(network, "v", half.float(), 0.5).to(torch.bfloat16))


def test_dropout_and_random_slopes_are_drawn_only_with_a_generator_and_from_it_alone() -> None:
    file = make_file(activation="rrelu", dropout=(0.0, 0.5, 0.0))
    network = load_network(file, CPU)
    assert torch.equal(change_context(network, "k", context()), change_context(network, "k", context()))
    draws = [change_context(network, "k", context(), draws=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    file = make_file(widths=(16,), sizes=(1.0, 1.0, 1.0), activation="linear", dropout=(0.0, 0.25, 0.0))
    ones = {
        name: torch.ones(values.shape).numpy() if name == "linear.2.weight" else 0 * values
        for name, values in file.widths[16][0].items()
    }
    ones["linear.0.bias"] = ones["linear.0.bias"] + 1
    network = load_network(replace(file, widths={16: (ones, ones)}), CPU)
    added = output_of(network, "k", torch.zeros(1, 4000, 16), draws=torch.Generator().manual_seed(0))
    assert added is not None
    # Each output is the sum of 16 numbers that are 0 with probability 1/4 and 4/3 else.
    assert float(added.mean()) == pytest.approx(16, abs=0.2)
    assert float(added.var()) == pytest.approx(16 * (0.75 * (4 / 3) ** 2 - 1), rel=0.3)


@pytest.mark.parametrize("activation", UNUSABLE_ACTIVATIONS)
def test_activations_that_cannot_work_are_refused_with_what_is_wrong(activation: str) -> None:
    with pytest.raises(VocableError, match=activation) as caught:
        check_network(make_file(activation=activation))
    assert caught.value.code == "hypernetwork.unsupported"
