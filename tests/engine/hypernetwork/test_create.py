"""New hypernetworks: their weights are drawn as webui draws them, from the seed alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from engine.errors import VocableError
from engine.hypernetwork.create import create_hypernetwork
from engine.hypernetwork.network_file import HypernetworkFile, check_network, list_tensors
from engine.models.load import Model


def create(starter: Model, **options: Any) -> HypernetworkFile:
    given: dict[str, Any] = {"name": "ink", "sizes": (1, 2, 1), "activation": "relu", "weight_init": "Normal"}
    return create_hypernetwork(starter, **{**given, "layer_norm": False, "seed": 3, **options})


def test_without_widths_each_attention_of_the_model_gets_modules(starter: Model) -> None:
    network = create(starter)
    check_network(network)
    assert list(network.widths) == [96, 128, 160]
    assert (network.step, network.model, network.model_hash) == (0, "starter", starter.entry.hash)
    assert list(create(starter, widths=(160, 96)).widths) == [96, 160]


@pytest.mark.parametrize(
    ("rule", "activation", "std", "bound"),
    [
        ("Normal", "relu", 0.01, None),
        ("XavierNormal", "relu", math.sqrt(2 / (128 + 256)), None),
        ("XavierUniform", "relu", math.sqrt(2 / (128 + 256)), math.sqrt(6 / (128 + 256))),
        ("KaimingNormal", "relu", math.sqrt(2 / 128), None),
        ("KaimingUniform", "tanh", math.sqrt(2 / 128), math.sqrt(6 / 128)),
        ("KaimingUniform", "leakyrelu", math.sqrt(2 / 128), math.sqrt(6 / 128)),
    ],
)
def test_weights_are_drawn_by_the_rule(
    starter: Model, rule: str, activation: str, std: float, bound: float | None
) -> None:
    network = create(starter, weight_init=rule, activation=activation, widths=(128,))
    weight, bias = (network.widths[128][0][f"linear.0.{part}"] for part in ("weight", "bias"))
    assert weight.shape == (256, 128)
    assert weight.std() == pytest.approx(std, rel=0.03)
    assert abs(weight.mean()) < 3 * std / math.sqrt(weight.size)
    assert bound is None or np.abs(weight).max() == pytest.approx(bound, rel=0.01)
    assert not bias.any()


def test_layer_norms_begin_small_and_a_prelu_at_a_quarter(starter: Model) -> None:
    network = create(starter, layer_norm=True, activation="prelu", weight_init="KaimingNormal", widths=(160,))
    module = network.widths[160][1]
    assert list(module) == [f"linear.{name}" for name in ("0.weight", "0.bias", "1.weight", "2.weight", "2.bias",
                                                          "3.weight", "3.bias", "4.weight", "4.bias")]  # fmt: skip
    assert module["linear.1.weight"].tolist() == [0.25]
    assert module["linear.2.weight"].std() == pytest.approx(0.01, rel=0.2)
    assert not module["linear.2.bias"].any()


def test_each_tensor_depends_on_seed_width_side_and_place_alone(starter: Model) -> None:
    whole, part = create(starter), create(starter, widths=(128,))
    for side in (0, 1):
        assert np.array_equal(whole.widths[128][side]["linear.2.weight"], part.widths[128][side]["linear.2.weight"])
    drawn = [values.tobytes()[:64] for key, values in list_tensors(whole) if key.endswith("weight")]
    assert len(set(drawn)) == len(drawn)
    assert not np.array_equal(
        create(starter, seed=4).widths[128][0]["linear.0.weight"], whole.widths[128][0]["linear.0.weight"]
    )


def test_one_whose_file_would_be_too_large_to_read_is_refused_before_it_is_trained(starter: Model) -> None:
    with pytest.raises(VocableError, match=r"would take 1353 MiB.*up to 512 MiB") as caught:
        create(starter, sizes=(1, 64, 64, 1), widths=(160, 128))
    assert caught.value.code == "hypernetwork.shape"


def test_a_width_that_the_model_does_not_have_is_refused_with_those_it_has(starter: Model) -> None:
    with pytest.raises(VocableError, match="96, 128, 160") as caught:
        create(starter, widths=(768,))
    assert caught.value.code == "hypernetwork.widths"
