"""Hypernetworks in the starter's U-Net: keys and values of every attention, and nothing left when the context ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.errors import VocableError
from engine.hypernetwork.attach import attached, list_attentions, list_widths
from engine.hypernetwork.family import check_family
from engine.hypernetwork.network import load_network
from engine.hypernetwork.network_file import HypernetworkFile
from engine.models.load import Model
from tests.engine.hypernetwork.networks import make_file, reference_context, webui_values


@pytest.fixture
def networks(starter: Model) -> list[HypernetworkFile]:
    widths = list_widths(starter.unet)
    return [make_file(widths, seed=seed, scale=0.05, activation="tanh") for seed in (1, 2)]


@torch.no_grad()
def predict(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn((1, 4, 8, 8), generator=generator), torch.randn((1, 77, 128), generator=generator)
    result: Tensor = model.unet(latents, torch.tensor([700]), encoder_hidden_states=text).sample
    return result


@contextmanager
def by_reference(unet: nn.Module, chain: list[tuple[dict[Any, Any], float]]) -> Iterator[None]:
    """Webui's rule, put on the projections of every transformer block by hand."""

    def change(side: int, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        context = inputs[0]
        for values, multiplier in chain:
            context = reference_context(values, side, context, multiplier)
        return (context,)

    with ExitStack() as hooks:
        for name, module in unet.named_modules():
            if name.endswith(("attn1", "attn2")):
                hooks.callback(module.to_k.register_forward_pre_hook(partial(change, 0)).remove)  # type: ignore
                hooks.callback(module.to_v.register_forward_pre_hook(partial(change, 1)).remove)  # type: ignore
        yield


def test_a_chain_does_what_the_reference_does(starter: Model, networks: list[HypernetworkFile]) -> None:
    loaded = [load_network(file, starter.device) for file in networks]
    with attached(starter.unet, [(loaded[0], 1.0), (loaded[1], -0.4)]):
        ours = predict(starter)
    with by_reference(starter.unet, [(webui_values(networks[0]), 1.0), (webui_values(networks[1]), -0.4)]):
        theirs = predict(starter)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, predict(starter), atol=1e-3)


def test_the_order_of_a_chain_matters(starter: Model, networks: list[HypernetworkFile]) -> None:
    first, second = (load_network(file, starter.device) for file in networks)
    outputs = []
    for chain in ([(first, 1.0), (second, 1.0)], [(second, 1.0), (first, 1.0)]):
        with attached(starter.unet, chain):
            outputs.append(predict(starter))
    assert not torch.equal(*outputs)


def test_strength_0_is_the_bare_model_bit_for_bit(starter: Model, networks: list[HypernetworkFile]) -> None:
    bare = predict(starter)
    with attached(starter.unet, [(load_network(networks[0], starter.device), 0.0)]):
        assert torch.equal(predict(starter), bare)


def test_nothing_is_left_when_the_context_ends_however_it_ends(
    starter: Model, networks: list[HypernetworkFile]
) -> None:
    bare, network = predict(starter), load_network(networks[0], starter.device)
    with attached(starter.unet, [(network, 1.0)]):
        assert not torch.equal(predict(starter), bare)
    with pytest.raises(KeyError), attached(starter.unet, [(network, 1.0)]):
        raise KeyError
    assert torch.equal(predict(starter), bare)
    assert all(not module._forward_pre_hooks for module in starter.unet.modules())


def test_self_attention_and_text_have_modules_of_their_own_by_width(starter: Model) -> None:
    assert list_widths(starter.unet) == [96, 128, 160]
    bare, changed = predict(starter), []
    for width in (96, 128, 160, 77):
        with attached(starter.unet, [(load_network(make_file([width]), starter.device), 1.0)]):
            changed.append(not torch.equal(predict(starter), bare))
    assert changed == [True, True, True, False]


def test_every_attention_of_the_u_net_is_found(starter: Model) -> None:
    named = [module for name, module in starter.unet.named_modules() if name.endswith(("attn1", "attn2"))]
    assert list_attentions(starter.unet) == named


def test_gradients_reach_the_network_through_every_kind_of_attention(
    starter: Model, networks: list[HypernetworkFile]
) -> None:
    network = load_network(networks[0], starter.device)
    network = replace(network, tensors={key: value.requires_grad_() for key, value in network.tensors.items()})
    latents, text = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 128)
    with attached(starter.unet, [(network, 1.0)]):
        starter.unet(latents, torch.tensor([500]), encoder_hidden_states=text).sample.square().mean().backward()
    for key, value in network.tensors.items():
        assert value.grad is not None, key
        assert value.grad.isfinite().all()
        assert value.grad.any() or key.endswith("bias"), key  # a bias of the keys may shift all scores alike
    assert all(parameter.grad is None for parameter in starter.unet.parameters())


def test_sdxl_is_refused_with_the_reason(starter: Model) -> None:
    with pytest.raises(VocableError, match="2048") as caught:
        check_family(replace(starter.entry, family="sdxl"))
    assert caught.value.code == "hypernetwork.model"
