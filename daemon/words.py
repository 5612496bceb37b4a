"""From files to words: which of the files found is the word of its name, and what people are told of each.

Pure; called by the library in a thread. The invariant: among words that one model can use, a name and a sequence of
token ids belong to one readable file, and every other that claims them says which one has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.inspector.facts import WordFacts
from daemon.inspector.intake import MAX_BYTES
from daemon.inspector.verdicts import Verdict
from daemon.protocol.service import WordView
from daemon.tables import Found, Kind, Table, Target, View, describe_path, make_table, rank, trained_elsewhere
from engine.names import fold_name
from engine.text import escape

SUFFIXES = (".safetensors", ".png", ".webp", ".pt", ".bin")
"""Extensions of files that are meant as words; of two files with one name, the kind further left is used."""

_ABSENT = "embedding.absent"
"""Code of the verdict on a picture that carries no word and never claimed to."""

_NO_NAME: Verdict[WordFacts] = Verdict(
    code="embedding.name",
    title="The file's name holds nothing that could name a word.",
    hint="Rename the file: letters, digits, blanks and . _ - are possible.",
)


def describe(path: Path, sha256: str, verdict: Verdict[WordFacts]) -> Found[WordFacts]:
    """Say what a file holds; foreign text is escaped."""
    own_name, view = describe_path(path, sha256, verdict)
    if not own_name and any(not word.name for word in verdict.contents):
        verdict = _NO_NAME
        _, view = describe_path(path, sha256, verdict)
    values = WordView(**view).model_dump()
    views = tuple(values | _facts(word, own_name) for word in verdict.contents) or (values,)
    return Found(sha256, verdict, rank(path, SUFFIXES), views)


def tabulate(
    found: Mapping[Path, Found[WordFacts]], root: Path, target: Target | None, canonical: Callable[[str], Path]
) -> Table:
    """Give each name, and each sequence of token ids, to one word.

    Args:
        found: what is known of the files below `root`.
        target: the model that people are told about; None while there is none, and then every width fits.
        canonical: where the canonical file of a content lies.
    """
    views: list[View] = []
    words: list[dict[str, Any]] = []
    holders = _Holders(root, target)
    for path, file in sorted(found.items(), key=lambda item: item[1].rank):
        if not file.verdict.readable:
            views += () if file.verdict.code == _ABSENT else file.views
            continue
        for view, word in zip(file.views, file.verdict.contents, strict=True):
            holder = holders.take(view["name"], word, path)
            if holder.owns_name:
                words.append(_on_the_wire(view["name"], file.sha256, word, canonical))
            views.append(_explain(view, word, holder, target))
    return make_table(target, views, words)


def widths(width: int, split: int) -> str:
    """A width in words: `768`, or `768 + 1280` for two encoders."""
    return f"{split} + {width - split}" if split else str(width)


@dataclass(frozen=True)
class _Place:
    """What a word got of what it claims."""

    owns_name: bool
    holder: str = ""
    """Who has its name or token ids instead, in words."""


class _Holders:
    """Who has which name and which token ids among the words of one width."""

    def __init__(self, root: Path, target: Target | None) -> None:
        self._root = root
        self._target = target
        self._names: dict[tuple[str, int, int], Path] = {}
        self._ids: dict[tuple[int, ...], tuple[str, Path]] = {}

    def take(self, name: str, word: WordFacts, path: Path) -> _Place:
        """Claim a name, and where the model fits its token ids, for a word of the file `path`."""
        key = (fold_name(name), word.width, word.split)
        holder = self._names.get(key)
        if holder is not None:
            return _Place(False, f"{self._shown(holder)} has the same name and is used instead.")
        self._names[key] = path
        target = self._target
        fits = target is not None and (word.width, word.split) == (target.width, target.split)
        if target is None or target.vocabulary is None or not fits:
            return _Place(True)
        ids = target.vocabulary.name_ids(name)
        if not ids:
            return _Place(True, "The model's vocabulary has no token for any sign of its name.")
        other_name, other_path = self._ids.setdefault(ids, (name, path))
        if (other_name, other_path) != (name, path):
            what = f"The word '{other_name}' ({self._shown(other_path)}) has the same tokens and is used instead"
            return _Place(True, f"{what}; <embedding:{name}> still means this one.")
        return _Place(True)

    def _shown(self, path: Path) -> str:
        return escape(str(path.relative_to(self._root)), 300)


def _facts(word: WordFacts, own_name: str) -> dict[str, Any]:
    return {
        "name": word.name or own_name,
        "vectors": word.vectors,
        "width": word.width,
        "family": word.family,
        "step": word.step,
        "model": escape(word.model, 200),
        "model_hash": escape(word.model_hash, 64),
    }


def _explain(view: View, word: WordFacts, place: _Place, target: Target | None) -> View:
    """Say why a readable word is not usable, if it is not, or what to beware of."""
    reason = misfit(word.width, word.split, target) if target is not None else ""
    if reason:
        return view | {"usable": False, "verdict": "wrong_width", "reason": reason}
    if place.holder:
        return view | {"usable": False, "verdict": "shadowed", "reason": place.holder}
    warning = beware(view["name"], word.model, word.model_hash, target)
    return view | {"warning": warning} if warning else view


def misfit(width: int, split: int, target: Target) -> str:
    """Why a model cannot use a word of this width; empty when it can."""
    if (width, split) == (target.width, target.split):
        return ""
    own, wanted = widths(width, split), widths(target.width, target.split)
    return f"Its vectors are {own} numbers wide, those of {escape(target.name, 100)} {wanted}."


def beware(name: str, model: str, model_hash: str, target: Target | None) -> str:
    """Why a word that fits may not do what is expected; empty when nothing speaks against it.

    Args:
        model, model_hash: what it was trained on, as its file says.
    """
    if target is None:
        return ""
    warnings = []
    if target.vocabulary is not None and target.vocabulary.is_ordinary(target.vocabulary.name_ids(name)):
        warnings.append(f"'{name}' is an ordinary word: every prompt with it uses this embedding instead.")
    warnings.append(trained_elsewhere(model, model_hash, target))
    return " ".join(filter(None, warnings))


def _on_the_wire(name: str, sha256: str, word: WordFacts, canonical: Callable[[str], Path]) -> dict[str, Any]:
    return {
        "name": name,
        "path": str(canonical(word.canonical)),
        "canonical": word.canonical,
        "hash": sha256,
        "vectors": word.vectors,
        "width": word.width,
        "split": word.split,
        "model": word.model,
        "model_hash": word.model_hash,
    }


EMBEDDINGS = Kind(
    cache="embeddings",
    facts=WordFacts,
    question="read words",
    suffixes=SUFFIXES,
    max_bytes=MAX_BYTES,
    incomplete="embedding.unreadable",
    describe=describe,
    tabulate=tabulate,
)
