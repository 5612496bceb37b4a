"""Hypernetworks as they stand on the shelf: what is known of each without its weights, which are read when one is used.

Made by the worker for those that a job's prompts name, and by training for the one that is being trained. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.hypernetwork.network_file import HypernetworkFile
from engine.names import fold_name
from engine.prompt.tags import Tag, read_hypernet


@dataclass(frozen=True)
class StoredNetwork:
    """One hypernetwork that prompts may name."""

    name: str
    hash: str
    """SHA-256 of its file, 64 hex digits."""
    model: str
    """Name of the base model that it was trained on, where known; as is `model_hash`."""
    model_hash: str
    load: Callable[[], HypernetworkFile]
    """Gives the hypernetwork itself; may read a file, and raises VocableError when that is not what it was."""


Chain = tuple[tuple[str, float], ...]
"""Hypernetworks in the order in which they work, by name as on the shelf, each with its strength."""


def shelve(network: HypernetworkFile) -> StoredNetwork:
    """A hypernetwork that is in memory already; nobody asks for the hash of its file."""
    return StoredNetwork(network.name, "", network.model, network.model_hash, lambda: network)


def fold_shelf(shelf: Sequence[StoredNetwork]) -> dict[str, StoredNetwork]:
    """The shelf by names as `fold_name` gives them; of equal names the first counts."""
    return {fold_name(item.name): item for item in reversed(shelf)}


def chain_of(tags: Iterable[Tag], shelf: Mapping[str, StoredNetwork]) -> Chain:
    """What a prompt's tags name, in their order; names of nothing and strength 0 are left out.

    Args:
        shelf: as `fold_shelf` makes it.
    """
    named = (found for tag in tags if (found := read_hypernet(tag)) is not None)
    return tuple(
        (shelf[fold_name(item.name)].name, item.strength)
        for item in named
        if item.strength and fold_name(item.name) in shelf
    )
