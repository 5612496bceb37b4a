"""Looks at a dataset's folder while training goes on: what came, changed and went, once nobody writes to it any more.

Called by the lookout in a thread of its own, for a folder may be slow or hang. A file counts when two looks in a row
found it the same; whatever cannot be read stays as it was. Nothing here uses the device.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.dataset.captions import read_caption
from engine.dataset.folder import PICTURE_SUFFIXES, natural_key
from engine.dataset.latents import FetchedPicture
from engine.dataset.manifest import Entry, Manifest, sort_manifest
from engine.dataset.pictures import read_picture
from engine.errors import VocableError

GATHER_S = 30.0
"""While files keep changing, what has settled is taken only so often: a copy of many pictures is few changes."""

PATIENCE_S = 10.0
"""What cannot be read may be a file whose end is still to come; so long after it last changed, it is what it is."""


class Stamp(NamedTuple):
    """What a file's content depends on; equal stamps mean the same content."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


Stamps = tuple[Stamp, Stamp | None]
"""Of a picture and of the text file beside it, if there is one."""


@dataclass(frozen=True)
class Settled:
    """The folder as it is now; every picture of it was offered before or was known from the start."""

    manifest: Manifest


@dataclass(frozen=True)
class Trouble:
    """Something that cannot be read; told once."""

    code: str
    title: str
    hint: str = ""


Offer = FetchedPicture | Settled | Trouble


class Survey:
    """What is known of one folder.

    Args:
        folder: absolute path.
        manifest: the pictures that training has.
        stamps: under which files they were read, and those which could not be; the others are read again.
        fetch: makes a picture ready for the device, from its hash, its bytes and its path.
        caption: reads the caption of a picture.
        check: called with each caption that is new; raises VocableError for one that training cannot use.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        stamps: Mapping[str, Stamps],
        *,
        fetch: Callable[[str, bytes, Path], FetchedPicture],
        caption: Callable[[Path], str] = read_caption,
        check: Callable[[str], None] = lambda caption: None,
    ) -> None:
        self._folder = folder
        self._fetch, self._caption, self._check = fetch, caption, check
        self._known = dict(manifest)
        self._told: Manifest = manifest
        self._offered = {entry.sha256 for entry in manifest.values()}
        self._read = dict(stamps)
        """Under which stamps a picture was read, or given up."""
        self._last: dict[str, Stamps] | None = None
        """The look before; None when there was none."""
        self._restless_since: float | None = None
        self._failing: dict[str, tuple[Stamps, float]] = {}
        """Pictures that cannot be read, under which stamps, and since when."""
        self._said: set[tuple[str, Stamps | None]] = set()

    def look(self, now: float) -> Iterator[Offer | None]:
        """Take one look; yields None wherever it may be broken off.

        Args:
            now: seconds of a clock that never goes back.
        """
        try:
            found = list_stamps(self._folder)
        except OSError as error:
            yield from self._miss(f"The folder '{self._folder}' cannot be read any more ({error.strerror})")
            return
        if not found:
            yield from self._miss(f"The folder '{self._folder}' holds no pictures any more")
            return
        self._said.discard(("", None))
        before, self._last = self._last, found
        if before is None:
            return
        moving = {name for name in {*before, *found} if before.get(name) != found.get(name)}
        if self._is_to_wait(bool(moving), now):
            return
        for name in sorted({*self._known, *found} - moving, key=natural_key):
            yield None
            yield from self._take(name, found.get(name), now)
        manifest = sort_manifest(self._known)
        if manifest and manifest != self._told:
            self._told = manifest
            yield Settled(manifest)

    def _is_to_wait(self, is_restless: bool, now: float) -> bool:
        if not is_restless:
            self._restless_since = None
            return False
        if self._restless_since is None:
            self._restless_since = now
        if now - self._restless_since < GATHER_S:
            return True
        self._restless_since = now
        return False

    def _take(self, name: str, stamps: Stamps | None, now: float) -> Iterator[Offer]:
        """Bring one picture up to date; without stamps there is none of this name."""
        if stamps is None:
            self._known.pop(name, None)
            self._read.pop(name, None)
            self._failing.pop(name, None)
            return
        if self._read.get(name) == stamps:
            return
        path = self._folder / name
        try:
            data, caption = read_picture(path), self._caption(path)
            if stamp_picture(path) != stamps:
                return
            sha256 = hashlib.sha256(data).hexdigest()
            fetched = None if sha256 in self._offered else self._fetch(sha256, data, path)
            self._check(caption)
        except VocableError as error:
            yield from self._fail(name, stamps, error, now)
            return
        except OSError:
            return  # it changed under our eyes; the next look tells
        if fetched is not None:
            self._offered.add(sha256)
            yield fetched
        self._known[name], self._read[name] = Entry(sha256, caption), stamps
        self._failing.pop(name, None)

    def _fail(self, name: str, stamps: Stamps, error: VocableError, now: float) -> Iterator[Offer]:
        """Name a picture that cannot be read, once, and leave it alone until it changes; one that the system would not
        hand out is tried again at each look."""
        kept, since = self._failing.get(name, (None, now))
        if kept != stamps:
            kept, since = self._failing[name] = stamps, now
        if now - since < PATIENCE_S:
            return
        if not isinstance(error.__cause__, OSError):
            self._read[name] = stamps
        if (name, stamps) not in self._said:
            self._said.add((name, stamps))
            what = "Training goes on with it as it was" if name in self._known else "It is left out"
            yield Trouble("dataset.skipped", error.title, f"{what} until it changes.")

    def _miss(self, what: str) -> Iterator[Offer]:
        self._last = None
        if ("", None) not in self._said:
            self._said.add(("", None))
            hint = "Training goes on with the pictures it has; when they are back, changes count again."
            yield Trouble("dataset.missing", f"{what}.", hint)


def list_stamps(folder: Path) -> dict[str, Stamps]:
    """The pictures of `folder`, hidden ones left out. Raises OSError when it cannot be looked through."""
    pictures: dict[str, Stamp] = {}
    texts: dict[str, Stamp] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            home = pictures if suffix.lower() in PICTURE_SUFFIXES else texts if suffix == ".txt" else None
            if home is None or entry.name.startswith("."):
                continue
            try:
                if entry.is_file():
                    home[entry.name if home is pictures else stem] = _stamp(entry.stat())
            except FileNotFoundError:
                continue
    return {name: (stamp, texts.get(os.path.splitext(name)[0])) for name, stamp in pictures.items()}


def stamp_picture(path: Path) -> Stamps:
    """The stamps of one picture and its text, as `list_stamps` gives them. Raises OSError when it is not there."""
    try:
        status = os.stat(path.with_suffix(".txt"))
    except FileNotFoundError:
        return _stamp(os.stat(path)), None
    return _stamp(os.stat(path)), _stamp(status) if stat.S_ISREG(status.st_mode) else None


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
