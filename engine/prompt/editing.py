"""Prompt editing and alternation: one text for each step of sampling.

Called by `engine.prompt.parse` for each side of `AND`. The grammar is that of AUTOMATIC1111's webui:
`[before:after:N]`, `[after:N]`, `[before::N]` switch behind step N, `[a|b|c]` takes turns; brackets that say nothing
of the kind are left for attention. Inside brackets all must fit; what does not is plain text, and a `|` or a last
backslash that does not makes the whole text plain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

_TOKEN = re.compile(r"(?P<text>(?:[^\\\[\]():|]|\\.)+)|[\[\]():|\\]", re.DOTALL)
_NUMBER = re.compile(r"\s*(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*")


@dataclass(frozen=True)
class Switch:
    """`[before:after:N]`."""

    before: Nodes
    after: Nodes
    number: str
    """As written: with a dot it is a fraction of all steps, else a step."""


@dataclass(frozen=True)
class Alternation:
    """`[a|b|c]`."""

    options: tuple[Nodes, ...]


Nodes = tuple["str | Switch | Alternation", ...]


@dataclass
class _Frame:
    """An open bracket and what has been read behind it."""

    bracket: str
    parts: list[list[str | Switch | Alternation]] = field(default_factory=lambda: [[]])
    """Contents between the separators."""
    separators: list[str] = field(default_factory=list)

    def flatten(self) -> Iterator[str | Switch | Alternation]:
        """The contents as plain text, with the constructs inside them."""
        yield self.bracket
        yield from self.parts[0]
        for separator, part in zip(self.separators, self.parts[1:], strict=True):
            yield separator
            yield from part


def schedule_text(text: str, steps: int) -> list[tuple[int, str]]:
    """The texts of sampling in so many steps, each with the last step (counted from 1) at which it holds.

    The last entry's step is always `steps`. Alternation has an entry for every step.
    """
    nodes = parse_editing(text)
    return [(step, _render(nodes, step, steps)) for step in sorted({steps, *_list_ends(nodes, steps)})]


def parse_editing(text: str) -> Nodes:
    """Read the constructs of a text; everything else is strings, which joined with them give the text again."""
    top: list[str | Switch | Alternation] = []
    frames: list[_Frame] = []
    for token in _TOKEN.finditer(text):
        sign = token[0]
        content = frames[-1].parts[-1] if frames else top
        if token["text"]:
            content.append(sign)
        elif sign in "([":
            frames.append(_Frame(sign))
        elif frames and sign in ":|" and _goes_on(frames[-1], sign):
            frames[-1].separators.append(sign)
            frames[-1].parts.append([])
        elif frames and sign in ")]" and (closed := _close(frames[-1], sign)) is not None:
            frames.pop()
            (frames[-1].parts[-1] if frames else top).extend(closed)
        elif sign in "|\\" or not _abandon(frames, top):
            return (text,)
        else:
            top.append(sign)
    return tuple(top) if _abandon(frames, top) else (text,)


def _goes_on(frame: _Frame, separator: str) -> bool:
    if frame.bracket == "(":
        return separator == ":" and not frame.separators
    return set(frame.separators) <= {separator} and (separator == "|" or len(frame.separators) < 2)


def _close(frame: _Frame, sign: str) -> list[str | Switch | Alternation] | None:
    """What the bracket holds once it is closed, or None when it cannot be closed so."""
    if frame.bracket + sign not in ("()", "[]"):
        return None
    if frame.bracket == "(" or not frame.separators:
        return list(_join_texts([*frame.flatten(), sign]))
    parts = [tuple(part) for part in frame.parts]
    if frame.separators[0] == "|":
        return [Alternation(tuple(parts))]
    number = _NUMBER.fullmatch("".join(str(node) for node in parts[-1]))
    if number is None:
        return None
    before = parts[0] if len(parts) == 3 else ()
    return [Switch(before, parts[-2], number["number"])]


def _join_texts(nodes: list[str | Switch | Alternation]) -> Iterator[str | Switch | Alternation]:
    """The same with fewer strings: what is nested a thousand deep is not copied sign by sign a thousand times."""
    for is_text, run in groupby(nodes, key=lambda node: isinstance(node, str)):
        if is_text:
            yield "".join(map(str, run))
        else:
            yield from run


def _abandon(frames: list[_Frame], top: list[str | Switch | Alternation]) -> bool:
    """Turn brackets that were opened in vain into text; False when a `|` among it forbids that."""
    for frame in frames:
        if "|" in frame.separators:
            return False
        top.extend(frame.flatten())
    frames.clear()
    return True


def _last_step(number: str, steps: int) -> int:
    """The last step before a switch; below 1 when it comes before all."""
    value = float(number) * (steps if "." in number else 1)
    return steps if value >= steps else math.trunc(max(value, 0))


def _list_ends(nodes: Nodes, steps: int) -> Iterator[int]:
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            if isinstance(node, Switch):
                waiting += [node.before, node.after]
                end = _last_step(node.number, steps)
                yield from [end] if end >= 1 else []
            elif isinstance(node, Alternation):
                waiting += node.options
                yield from range(1, steps + 1)


def _render(nodes: Nodes, step: int, steps: int) -> str:
    """The text at a step. Not by recursion: brackets may be nested as deep as the text is long."""
    texts: list[str] = []
    open_nodes = [iter(nodes)]
    while open_nodes:
        node = next(open_nodes[-1], None)
        if node is None:
            open_nodes.pop()
        elif isinstance(node, str):
            texts.append(node)
        elif isinstance(node, Alternation):
            open_nodes.append(iter(node.options[(step - 1) % len(node.options)]))
        else:
            open_nodes.append(iter(node.before if step <= _last_step(node.number, steps) else node.after))
    return "".join(texts)
