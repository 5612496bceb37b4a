"""From files to hypernetworks: which of the files found has its name, and what people are told of each.

Pure; called by the library in a thread, and by the service for files and prompts. The invariant: among hypernetworks of
equal widths a name belongs to one readable file, and every other that claims it says which one has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon.inspector.facts import HypernetworkFacts
from daemon.inspector.verdicts import Verdict
from daemon.protocol.hypernetworks import HypernetworkView
from daemon.tables import Found, Kind, Table, Target, View, describe_path, make_table, rank, trained_elsewhere
from engine.names import fold_name
from engine.text import escape

MAX_BYTES = 512 << 20
"""Largest file that is read: SD 1.x takes 88 MB at layer structure 1, 2, 1, and up to some 450 MB at deeper ones."""

SUFFIXES = (".safetensors", ".pt")

_NO_NAME: Verdict[HypernetworkFacts] = Verdict(
    code="hypernetwork.name",
    title="The file's name holds nothing that could name a hypernetwork.",
    hint="Rename the file: letters, digits, blanks and . _ - are possible.",
)

Wire = Mapping[str, Any]
"""What the worker is told of a hypernetwork, and by what it is chosen: `widths`."""


def describe(path: Path, sha256: str, verdict: Verdict[HypernetworkFacts]) -> Found[HypernetworkFacts]:
    """Say what a file holds; foreign text is escaped."""
    own_name, view = describe_path(path, sha256, verdict)
    if not own_name and verdict.readable:
        verdict = _NO_NAME
        _, view = describe_path(path, sha256, verdict)
    values = HypernetworkView(**view).model_dump()
    views = tuple(values | _facts(network) for network in verdict.contents) or (values,)
    return Found(sha256, verdict, rank(path, SUFFIXES), views)


def tabulate(
    found: Mapping[Path, Found[HypernetworkFacts]], root: Path, target: Target | None, canonical: Callable[[str], Path]
) -> Table:
    """Give each name to one hypernetwork of each set of widths; see `Kind.tabulate`."""
    views: list[View] = []
    wire: list[dict[str, Any]] = []
    holders: dict[tuple[str, tuple[int, ...]], Path] = {}
    usable: dict[str, Path] = {}
    for path, file in sorted(found.items(), key=lambda item: item[1].rank):
        views += () if file.verdict.readable else file.views
        for view, network in zip(file.views, file.verdict.contents, strict=False):
            name = fold_name(view["name"])
            holder = holders.setdefault((name, network.widths), path)
            if holder == path:
                wire.append(_on_the_wire(view["name"], file.sha256, network, canonical))
            if not misfit(network.widths, target):
                holder = usable.setdefault(name, path)
            shown = "" if holder == path else escape(str(holder.relative_to(root)), 300)
            views.append(_explain(view, network, shown, target))
    return make_table(target, views, wire)


def misfit(widths: Sequence[int], target: Target | None) -> str:
    """Why a model cannot use a hypernetwork of these widths; empty when it can."""
    if target and target.family == "sdxl":
        return f"{escape(target.name, 100)} is of the SDXL family, for which there are no hypernetworks."
    if target is None or not target.channels or set(widths) & set(target.channels):
        return ""
    has = f"that of {escape(target.name, 100)} has {_list(target.channels)}"
    return f"It is for attention of {_list(widths)} channels; {has}."


def beware(widths: Sequence[int], model: str, model_hash: str, target: Target | None) -> str:
    """Why a hypernetwork that fits may not do what is expected; empty when nothing speaks against it.

    Args:
        model, model_hash: what it was trained on, as its file says.
    """
    warnings = []
    idle = sorted(set(widths) - set(target.channels)) if target and target.channels else []
    if idle and target:
        warnings.append(
            f"{escape(target.name, 100)} has no attention of {_list(idle)} channels; that part is not used."
        )
    warnings.append(trained_elsewhere(model, model_hash, target))
    return " ".join(filter(None, warnings))


def find_fitting(known: Iterable[Wire], target: Target | None) -> dict[str, Wire]:
    """Of the hypernetworks that there are, those that a model can use, by their names as `fold_name` gives them."""
    fitting: dict[str, Wire] = {}
    for network in known:
        if not misfit(network["widths"], target):
            fitting.setdefault(fold_name(network["name"]), network)
    return fitting


def _facts(network: HypernetworkFacts) -> dict[str, Any]:
    return {
        "step": network.step,
        "sizes": list(network.sizes),
        "activation": escape(network.activation, 60),
        "layer_norm": network.layer_norm,
        "widths": list(network.widths),
        "parameters": network.parameters,
        "family": network.family,
        "model": escape(network.model, 200),
        "model_hash": escape(network.model_hash, 64),
    }


def _explain(view: View, network: HypernetworkFacts, holder: str, target: Target | None) -> View:
    """Say why a readable hypernetwork is not usable, if it is not, or what to beware of."""
    reason = misfit(network.widths, target)
    if reason:
        return view | {"usable": False, "verdict": "wrong_width", "reason": reason}
    if holder:
        reason = f"{holder} has the same name and is used instead."
        return view | {"usable": False, "verdict": "shadowed", "reason": reason}
    warning = beware(network.widths, network.model, network.model_hash, target)
    return view | {"warning": warning} if warning else view


def _list(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))


def _on_the_wire(
    name: str, sha256: str, network: HypernetworkFacts, canonical: Callable[[str], Path]
) -> dict[str, Any]:
    return {
        "name": name,
        "path": str(canonical(network.canonical)),
        "canonical": network.canonical,
        "hash": sha256,
        "widths": list(network.widths),
        "model": network.model,
        "model_hash": network.model_hash,
    }


HYPERNETWORKS = Kind(
    cache="hypernetworks",
    facts=HypernetworkFacts,
    question="read hypernetwork",
    suffixes=SUFFIXES,
    max_bytes=MAX_BYTES,
    incomplete="hypernetwork.unreadable",
    describe=describe,
    tabulate=tabulate,
)
