"""Puts hypernetworks into a U-Net for as long as a context lasts: before the keys and values of every attention module.

Called by sampling, evaluation and training in the worker. Forward hooks on the projections change their input, whatever
way of attention is used between them; when the context ends nothing of them is left, and with strength 0 nothing of
them is there at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from engine.hypernetwork.network import Network, Side, change_context

Change = Callable[[int, Side, Tensor], Tensor]
"""From the number of the attention module, the side and its context to the context that is used."""


@contextmanager
def attached(unet: nn.Module, networks: Sequence[tuple[Network, float]]) -> Iterator[None]:
    """Have `unet` (a diffusers U-Net) use hypernetworks, each with its strength, in the order given."""
    active = [(network, strength) for network, strength in networks if strength]

    def change(_place: int, side: Side, context: Tensor) -> Tensor:
        for network, strength in active:
            context = change_context(network, side, context, strength)
        return context

    if not active:
        yield
        return
    with changed(unet, change):
        yield


@contextmanager
def changed(unet: nn.Module, change: Change) -> Iterator[None]:
    """Have every attention module of `unet` compute keys and values from what `change` makes of its context."""
    with ExitStack() as hooks:
        for place, module in enumerate(list_attentions(unet)):
            hooks.callback(module.to_k.register_forward_pre_hook(partial(_replace, change, place, "k")).remove)
            hooks.callback(module.to_v.register_forward_pre_hook(partial(_replace, change, place, "v")).remove)
        yield


def list_attentions(unet: nn.Module) -> list[Attention]:
    """The attention modules of a U-Net, of self-attention (whose context is its input) and of attention to the text."""
    return [module for module in unet.modules() if isinstance(module, Attention)]


def list_widths(unet: nn.Module) -> list[int]:
    """Channel counts of all contexts in a U-Net, ascending: what a hypernetwork for it can have modules for."""
    return sorted({module.to_k.in_features for module in list_attentions(unet)})


def _replace(
    change: Change, place: int, side: Side, _projection: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    return (change(place, side, inputs[0]), *inputs[1:])
