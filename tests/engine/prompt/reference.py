"""A second reading of the prompt grammar, for comparison: written from its description alone, in another manner.

A prompt is a list of symbols, one for each character, escape or explicit word. Brackets are reduced from the inside
out; weights are kept for each character; every slot of a chunk carries its word with it. Nothing here is fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

Symbol = Any
"""A character, or an `Explicit`; in editing also a `Node`, a `Dead` sign or a pair of backslash and character."""
_ANGLED = re.compile(r"<embedding:([^>]+)>", re.IGNORECASE)
_BARE = re.compile(r"(?<!\w)embedding:(?=\w)", re.IGNORECASE)
_STRANGER = re.compile(r"\w+([.-]\w+)*")

Tokenise = Callable[[str], list[int]]


@dataclass(frozen=True)
class Explicit:
    word: str


@dataclass(frozen=True)
class Dead:
    """A bracket or separator that turned out to be text."""

    sign: str


@dataclass(frozen=True)
class Node:
    kind: str
    parts: list[list[Symbol]]
    number: str = ""


@dataclass(frozen=True)
class Library:
    words: Sequence[tuple[str, int]]
    tokenise: Tokenise
    comma: int


def read_prompt(text: str, library: Library, steps: int, emphasis: str, negative: bool) -> dict[str, Any]:
    """The parts of a prompt, plain enough for JSON: weight, then for each entry its step, and for each chunk the ids
    of its slots, its words and its weights."""
    text = "\n".join(_without_comment(line) for line in text.split("\n"))
    found = re.findall(r"<(\w+):([^>]+)>", text)
    tags = [[kind, *arguments.split(":")] for kind, arguments in found if kind.lower() != "embedding"]
    text = re.sub(r"<(?![Ee]mbedding:)\w+:[^>]+>", "", text)
    symbols, unknown = _find_explicit(text, library, emphasis)
    parts = []
    for side, weight in [(symbols, 1.0)] if negative else _split_sides(symbols):
        entries = [[until, _chunks(variant, library, emphasis)] for until, variant in schedule(side, steps)]
        parts.append({"weight": weight, "entries": entries})
    return {"tags": tags, "unknown": unknown, "parts": parts}


def _without_comment(line: str) -> str:
    escaped = False
    for position, char in enumerate(line):
        if char == "#" and not escaped:
            return line[:position]
        escaped = char == "\\" and not escaped
    return line


def _find_explicit(text: str, library: Library, emphasis: str) -> tuple[list[Symbol], list[str]]:
    symbols: list[Symbol] = []
    unknown: list[str] = []
    position = 0
    while position < len(text):
        angled = _ANGLED.match(text, position)
        if angled:
            weighted = re.fullmatch(r"([^:]*):([-+]?(?:\d+\.\d*|\.\d+|\d+))", angled[1])
            wanted, weight = weighted.groups() if weighted else (angled[1], "")
            names = [name for name, _ in library.words if name.lower() == wanted.lower()]
            names.sort(key=lambda name: name != wanted)
            if names:
                word = Explicit(names[0])
                symbols += ["(", word, ":", *weight, ")"] if weight and emphasis != "None" else [word]
            else:
                unknown.append(angled[1])
            position = angled.end()
        elif _BARE.match(text, position):
            position += len("embedding:")
            fitting = []
            for name, _ in library.words:
                form = re.compile(re.escape(name) + r"(\.pt|\.safetensors)?(?![\w]|[-.]\w)", re.IGNORECASE)
                found = form.match(text, position)
                if found:
                    fitting.append((len(name), text.startswith(name, position), found.end(), name))
            if fitting:
                _, _, position, word = max(fitting, key=lambda fit: fit[:2])
                symbols.append(Explicit(word))
            else:
                stranger = _STRANGER.match(text, position)
                assert stranger
                unknown.append(stranger[0])
                position = stranger.end()
        else:
            symbols.append(text[position])
            position += 1
    return symbols, list(dict.fromkeys(unknown))


def _shadow(symbols: Sequence[Symbol]) -> str:
    """One character for each symbol, so that expressions can be searched; explicit words are signs of no kind."""
    return "".join(symbol if isinstance(symbol, str) else "\0" for symbol in symbols)


def _split_sides(symbols: list[Symbol]) -> list[tuple[list[Symbol], float]]:
    shadow = _shadow(symbols)
    borders = [(0, 0), *(found.span() for found in re.finditer(r"\bAND\b", shadow)), (len(shadow), len(shadow))]
    sides = []
    for (_, start), (stop, _) in pairwise(borders):
        found = re.search(r"\s*:\s*([-+]?(?:\d+\.\d*|\.\d+|\d+))\s*$", shadow[start:stop])
        if found:
            sides.append((symbols[start : start + found.start()], float(found[1])))
        else:
            sides.append((symbols[start : start + len(shadow[start:stop].rstrip())], 1.0))
    return sides


# Editing: the first closing sign and the last opening sign before it are a pair; pairs are reduced until none is left.


def schedule(symbols: list[Symbol], steps: int) -> list[tuple[int, list[Symbol]]]:
    tree = _reduce(symbols)
    if tree is None:
        return [(steps, symbols)]
    ends = {steps}
    _collect(tree, steps, ends)
    return [(end, _at(tree, end, steps)) for end in sorted(ends)]


def _reduce(symbols: list[Symbol]) -> list[Symbol] | None:
    signs: list[Symbol] = []
    position = 0
    while position < len(symbols):
        if symbols[position] == "\\":
            if position + 1 == len(symbols):
                return None
            signs.append(("\\", symbols[position + 1]))
            position += 1
        else:
            signs.append(symbols[position])
        position += 1
    while True:
        closers = [
            place for place, sign in enumerate(signs) if sign in (")", "]") and _opener(signs, place) is not None
        ]
        if not closers:
            return None if "|" in signs else signs
        stop = closers[0]
        start = _opener(signs, stop)
        assert start is not None
        inside = signs[start + 1 : stop]
        node = _make_node(signs[start] + signs[stop], inside)
        dead = [Dead(signs[start]), *inside, Dead(signs[stop])]
        signs[start : stop + 1] = dead if node is None else [node]


def _opener(signs: list[Symbol], closer: int) -> int | None:
    return next((place for place in range(closer - 1, -1, -1) if signs[place] in ("(", "[")), None)


def _make_node(pair: str, inside: list[Symbol]) -> Node | None:
    if any(isinstance(sign, Dead) or sign in (")", "]") for sign in inside):
        return None
    colons, bars = inside.count(":"), inside.count("|")
    if pair == "()":
        return Node("(", [inside]) if not bars and colons <= 1 else None
    if pair != "[]" or (colons and bars):
        return None
    if not colons and not bars:
        return Node("[", [inside])
    if bars:
        return Node("|", _split(inside, "|"))
    parts = _split(inside, ":")
    number = "".join(sign if isinstance(sign, str) else "?" for sign in parts[-1]).strip()
    if colons > 2 or not re.fullmatch(r"[-+]?(\d+|\d+\.\d*|\.\d+)([eE][-+]?\d+)?", number):
        return None
    return Node(":", [[], *parts[:-1]][-2:], number)


def _split(signs: list[Symbol], separator: str) -> list[list[Symbol]]:
    parts: list[list[Symbol]] = [[]]
    for sign in signs:
        if sign == separator:
            parts.append([])
        else:
            parts[-1].append(sign)
    return parts


def _border(node: Node, steps: int) -> int:
    number = float(node.number) * steps if "." in node.number else float(node.number)
    return min(steps, int(number))


def _collect(tree: list[Symbol], steps: int, ends: set[int]) -> None:
    for sign in tree:
        if isinstance(sign, Node):
            if sign.kind == ":" and _border(sign, steps) >= 1:
                ends.add(_border(sign, steps))
            if sign.kind == "|":
                ends.update(range(1, steps + 1))
            for part in sign.parts:
                _collect(part, steps, ends)


def _at(tree: list[Symbol], step: int, steps: int) -> list[Symbol]:
    symbols: list[Symbol] = []
    for sign in tree:
        if isinstance(sign, Dead):
            symbols.append(sign.sign)
        elif isinstance(sign, tuple):
            symbols += sign
        elif not isinstance(sign, Node):
            symbols.append(sign)
        elif sign.kind == ":":
            symbols += _at(sign.parts[0] if step <= _border(sign, steps) else sign.parts[1], step, steps)
        elif sign.kind == "|":
            symbols += _at(sign.parts[(step - 1) % len(sign.parts)], step, steps)
        else:
            inside = _at(sign.parts[0], step, steps)
            symbols += [sign.kind, *inside, {"(": ")", "[": "]"}[sign.kind]]
    return symbols


# Attention: a weight for each character.


def attention(symbols: list[Symbol], emphasis: str) -> list[list[tuple[list[Symbol], float]]]:
    """Sections of runs of equal weight."""
    if emphasis == "None":
        return [[(symbols, 1.0)]]
    kept: list[Symbol] = []
    plain: list[bool] = []  # whether BREAK may be read across this and the next symbol
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        weights[start:] = [weight * factor for weight in weights[start:]]

    def end_run() -> None:
        plain[-1:] = [False] * len(plain[-1:])

    shadow = _shadow(symbols)
    position = 0
    while position < len(symbols):
        sign = shadow[position]
        number = re.compile(r":\s*([-+]?(?:\d+\.\d*|\.\d+|\d+))\s*\)").match(shadow, position)
        length = 1
        if sign == "\\" and shadow[position + 1 : position + 2] in ("(", ")", "[", "]", "\\"):
            kept.append(symbols[position + 1])
            plain.append(False)
            weights.append(1.0)
            length = 2
        elif sign == "\\":
            end_run()
        elif sign in "([":
            opened[sign].append(len(kept))
            end_run()
        elif number and opened["("]:
            multiply(opened["("].pop(), float(number[1]))
            length = number.end() - position
            end_run()
        elif sign == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
            end_run()
        elif sign == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
            end_run()
        else:
            if sign in ")]:":
                end_run()
            kept.append(symbols[position])
            plain.append(sign not in ")]:")
            weights.append(1.0)
        position += length
    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)
    return _cut_sections(kept, plain, weights)


def _cut_sections(
    kept: list[Symbol], plain: list[bool], weights: list[float]
) -> list[list[tuple[list[Symbol], float]]]:
    sections: list[list[tuple[Symbol, float]]] = [[]]
    start = 0
    while start < len(kept):
        stop = start + 1
        while stop < len(kept) and plain[stop - 1]:
            stop += 1
        run = _shadow(kept[start:stop])
        borders = [(0, 0), *(found.span() for found in re.finditer(r"\s*\bBREAK\b\s*", run)), (len(run), len(run))]
        for number, ((_, first), (last, _)) in enumerate(pairwise(borders)):
            if number:
                sections.append([])
            sections[-1] += [(kept[start + place], weights[start + place]) for place in range(first, last)]
        start = stop
    return [
        [([symbol for symbol, _ in run], weight) for weight, run in groupby(section, key=lambda pair: pair[1])]
        for section in sections
    ]


# Layout: a slot is (id, weight, word or nothing, number of the vector in the word).


def _chunks(symbols: list[Symbol], library: Library, emphasis: str) -> list[dict[str, Any]]:
    done: list[list[tuple[int, float, str, int]]] = []
    slots: list[tuple[int, float, str, int]] = []
    comma: int | None = None
    for number, section in enumerate(attention(symbols, emphasis)):
        if number:
            done.append(slots)
            slots, comma = [], None
        for run, factor in section:
            weight = 1.0 if emphasis == "Ignore" else factor
            for item in _items(run, library):
                if item == library.comma:
                    comma = len(slots)
                elif len(slots) == 75 and comma is not None and 75 - comma <= 20:
                    done.append(slots[: comma + 1])
                    slots, comma = slots[comma + 1 :], None
                if len(slots) == 75:
                    done.append(slots)
                    slots, comma = [], None
                if isinstance(item, int):
                    slots.append((item, weight, "", 0))
                    continue
                name, vectors = item
                if len(slots) + vectors > 75:
                    done.append(slots)
                    slots, comma = [], None
                slots += [(0, weight, name, vector) for vector in range(vectors)]
    if slots or not done:
        done.append(slots)
    return [_describe(chunk, dict(library.words)) for chunk in done]


def _items(run: list[Symbol], library: Library) -> list[int | tuple[str, int]]:
    vectors = dict(reversed(library.words))
    items: list[int | tuple[str, int]] = []
    for explicit, symbols in groupby(run, key=lambda symbol: isinstance(symbol, Explicit)):
        if explicit:
            items += [(symbol.word, vectors[symbol.word]) for symbol in symbols]
            continue
        ids = library.tokenise("".join(symbols))
        while ids:
            named = [(library.tokenise(name), name, count) for name, count in library.words]
            fitting = [(name_ids, name, count) for name_ids, name, count in named if ids[: len(name_ids)] == name_ids]
            longest = max(fitting, key=lambda fit: len(fit[0]), default=None)
            items.append((longest[1], longest[2]) if longest else ids[0])
            ids = ids[len(longest[0]) if longest else 1 :]
    return items


def _describe(slots: list[tuple[int, float, str, int]], vectors: dict[str, int]) -> dict[str, Any]:
    return {
        "slots": [slot[0] for slot in slots],
        "places": [
            [slot[2], 1 + place, vectors[slot[2]]] for place, slot in enumerate(slots) if slot[2] and not slot[3]
        ],
        "weights": [[weight, len(list(run))] for weight, run in groupby(slots, key=lambda slot: slot[1])],
    }
