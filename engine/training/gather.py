"""The pictures that a run begins or goes on with: read from its folder, or brought back as its journal says.

Called by the training loop before the first step. Pictures that cannot be read are left out and named; the run fails
only if none remains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.dataset.captions import read_caption
from engine.dataset.folder import list_pictures
from engine.dataset.latents import LatentCache, Latents
from engine.dataset.manifest import Entry, Manifest, count, list_some
from engine.dataset.pictures import read_picture
from engine.dataset.survey import Stamps, stamp_picture
from engine.errors import VocableError
from engine.events import Event, PhaseChanged, Warned
from engine.models.load import Model
from engine.training.epochs import Epochs, Sample, Stretch, make_epochs
from engine.training.job import Control, TrainingJob
from engine.training.journal import Journal, open_journal

_SKIPPED = ("dataset.picture", "dataset.caption")
"""Errors of one picture, which the others do without."""
_NAMED = 10


@dataclass(frozen=True)
class Material:
    """What training works on, in memory."""

    cache: LatentCache
    latents: dict[str, Latents]
    """By hash of the picture's file."""
    epochs: Epochs
    manifest: Manifest
    """The newest set, in effect or decided."""
    skipped: tuple[str, ...] = ()
    """Sentences, one for each picture that could not be read."""
    stamps: Mapping[str, Stamps] = field(default_factory=dict)
    """Under which files the pictures were read, those that could not be included."""
    journal: Journal | None = None
    """Of a live dataset."""
    is_replayed: bool = False
    """The pictures are those that the journal names."""
    fault: str = ""
    """Why they are not, although the run goes on; the end of a sentence."""
    troubles: list[VocableError] = field(default_factory=list)
    """What the cache could not keep; it goes on to grow."""


_Gathering = Generator[Event | None, None, Material | None]


def gather_pictures(model: Model, job: TrainingJob, control: Control, kept: Mapping[str, Any] | None) -> _Gathering:
    """Encode the job's pictures, telling how far it is; returns the `Material`, or None when asked to end.

    A live dataset goes on with the pictures that its journal names, also with those that the folder has no more.

    Args:
        kept: facts of the checkpoint from which the run goes on, if any.

    Raises:
        VocableError: `dataset.unreadable` when no picture can be read; `disk.*`.
    """
    troubles: list[VocableError] = []
    cache = LatentCache(job.latents, model, width=job.width, height=job.height, on_write_error=troubles.append)
    journal = open_journal(job.folder) if job.recipe.data.live else None
    material, fault = None, ""
    if journal is not None and kept is not None and "journal" in kept["run"]:
        fault = _find_fault(journal, kept["run"]["journal"])
        if not fault:
            material = yield from _replay(cache, job, control, journal)
            if material is None:
                return None
            lost = material.epochs.lost_after(kept["step"])
            fault = describe_lost(lost) if lost else ""
    if material is None or fault:
        material = yield from _read_folder(cache, job, control, journal, fault)
        if material is None:
            return None
    material = replace(material, troubles=troubles)
    yield from _warnings(material)
    return material


def _find_fault(journal: Journal, mark: Mapping[str, Any]) -> str:
    if journal.fault or journal.follows(mark):
        return journal.fault
    return f"{journal.path.name} is {'another' if journal.records else 'gone'}"


def _read_folder(
    cache: LatentCache, job: TrainingJob, control: Control, journal: Journal | None, fault: str
) -> _Gathering:
    """The pictures as they lie in the folder, as if they had been there from the first step on."""
    latents: dict[str, Latents] = {}
    manifest: dict[str, Entry] = {}
    stamps: dict[str, Stamps] = {}
    skipped: list[str] = []
    pictures = job.resolved.pictures
    for done, path in enumerate(pictures):
        yield PhaseChanged("encoding", done, len(pictures))
        if control.ask:
            return None
        try:
            stamps[path.name] = stamp_picture(path)
            encoded = cache.encode(path)
            manifest[path.name] = Entry(encoded.sha256, read_caption_of(job, path))
        except OSError as error:
            skipped.append(f"The picture '{path.name}' could not be read ({error.strerror}).")
            continue
        except VocableError as error:
            if error.code not in _SKIPPED:
                raise
            skipped.append(error.title)
            continue
        latents[encoded.sha256] = encoded.latents
    yield PhaseChanged("encoding", len(pictures), len(pictures))
    if not manifest:
        raise _nothing_readable(job, skipped)
    train = job.recipe.train
    epochs = make_epochs(make_samples(manifest, latents), batch_size=train.batch_size, seed=train.seed)
    return Material(cache, latents, epochs, manifest, tuple(skipped), stamps, journal, fault=fault)


def _replay(cache: LatentCache, job: TrainingJob, control: Control, journal: Journal) -> _Gathering:
    """The pictures of every set that the journal names; those that cannot be had are `lost` to their stretches."""
    names = {entry.sha256: name for record in journal.records for name, entry in record.manifest.items()}
    folder = _Folder(job.resolved.folder)
    latents: dict[str, Latents] = {}
    for done, (sha256, name) in enumerate(names.items()):
        yield PhaseChanged("encoding", done, len(names))
        if control.ask:
            return None
        found = cache.find(sha256)
        path = folder.find(name, sha256) if found is None else None
        if path is not None:
            found = _encode(cache, path, sha256)
        if found is not None:
            latents[sha256] = found
    yield PhaseChanged("encoding", len(names), len(names))
    epochs = Epochs(_make_stretches(journal, latents), job.recipe.train.batch_size, job.recipe.train.seed)
    return Material(cache, latents, epochs, journal.records[-1].manifest, journal=journal, is_replayed=True)


def make_samples(manifest: Manifest, latents: Mapping[str, Latents]) -> tuple[Sample, ...]:
    """What training sees of the pictures whose latents there are."""
    return tuple(
        Sample(name, entry.caption, latents[entry.sha256])
        for name, entry in manifest.items()
        if entry.sha256 in latents
    )


def describe_lost(names: Sequence[str]) -> str:
    """The end of a sentence about what changed since."""
    return f"{list_some(names)} cannot be had any more, not even from the cache"


def read_caption_of(job: TrainingJob, path: Path) -> str:
    """The caption of a picture as the recipe wants it made. Raises VocableError `dataset.caption`."""
    return read_caption(path, word_regex=job.recipe.data.word_regex, word_join=job.recipe.data.word_join)


def warn_of_transparency(manifest: Manifest, latents: Mapping[str, Latents]) -> Iterator[Event]:
    """Say which of the pictures have see-through parts."""
    names = [name for name, entry in manifest.items() if entry.sha256 in latents and latents[entry.sha256].transparent]
    if names:
        yield Warned(
            "dataset.transparent",
            f"{count(len(names), 'picture')} with see-through parts, laid on white: {list_some(names, limit=_NAMED)}.",
            "Give pictures with a background of their own if white should not be learnt.",
        )


def warn_of_cache(troubles: Sequence[VocableError]) -> Iterator[Event]:
    """Say that latents could not be kept, with the first reason."""
    if troubles:
        yield Warned("cache.write", f"Encoded pictures could not be kept: {troubles[0].title}", troubles[0].hint)


class _Folder:
    """Finds pictures by their content, where the cache has lost them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_hash: dict[str, Path] | None = None

    def find(self, name: str, sha256: str) -> Path | None:
        """The picture with this content: most likely under its old name, but it may have another by now."""
        path = self._path / name
        if _hash(path) == sha256:
            return path
        if self._by_hash is None:
            self._by_hash = {found: path for path in self._list() if (found := _hash(path))}
        return self._by_hash.get(sha256)

    def _list(self) -> tuple[Path, ...]:
        try:
            return list_pictures(self._path)
        except VocableError:
            return ()


def _hash(path: Path) -> str:
    """SHA-256 of a picture's file; empty when it cannot be read."""
    try:
        return hashlib.sha256(read_picture(path)).hexdigest()
    except VocableError:
        return ""


def _encode(cache: LatentCache, path: Path, sha256: str) -> Latents | None:
    """Latents of a picture, unless it is another one by now or cannot be read."""
    try:
        encoded = cache.encode(path)
    except VocableError as error:
        if error.code not in _SKIPPED:
            raise
        return None
    return encoded.latents if encoded.sha256 == sha256 else None


def _make_stretches(journal: Journal, latents: Mapping[str, Latents]) -> tuple[Stretch, ...]:
    """The stretches of all records; one of which nothing is left borrows the pictures of the next."""
    stretches: list[Stretch] = []
    samples: tuple[Sample, ...] = ()
    for record in reversed(journal.records):
        lost = tuple(name for name, entry in record.manifest.items() if entry.sha256 not in latents)
        samples = make_samples(record.manifest, latents) or samples
        stretches.append(Stretch(record.after_step, record.epoch, samples, lost))
    return tuple(reversed(stretches))


def _nothing_readable(job: TrainingJob, skipped: list[str]) -> VocableError:
    reason = skipped[0] if skipped else "There are none."
    return VocableError(
        "dataset.unreadable",
        f"None of the {len(job.resolved.pictures)} pictures in '{job.resolved.folder}' could be read. {reason}",
        "Put pictures there that other programs can open.",
    )


def _warnings(material: Material) -> Iterator[Event]:
    skipped = material.skipped
    if skipped:
        names = list_some(skipped, " ", _NAMED)
        yield Warned("dataset.skipped", f"{count(len(skipped), 'picture')} left out: {names}")
    yield from warn_of_transparency(material.manifest, material.latents)
    yield from warn_of_cache(material.troubles)
