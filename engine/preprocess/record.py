"""`preprocess.json`: what lies in a destination, of which source bytes and options it was made, and by us.

Called by run and plan. The invariant: a file is called ours only when its bytes are those that were written down before
it got its name; so nothing of anybody else's is ever written over or removed, and a kill at any moment loses nothing.
While work goes on, entries are appended to a journal; at its end they are folded into `preprocess.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from engine.errors import VocableError
from engine.files import append, write_atomically
from engine.preprocess.folders import DEBUG_FOLDER
from engine.preprocess.likeness import Fingerprint
from engine.preprocess.results import Output, State
from engine.preprocess.texts import hash_bytes

RECORD = "preprocess.json"
JOURNAL = ".preprocess.journal"
FORMAT = 1

Standing = Literal["missing", "ours", "older", "foreign"]
"""Of a file under a name: not there; as written last; as written before that; of somebody else, or changed by hand."""


@dataclass(frozen=True)
class Entry:
    """What was done to one source picture."""

    source: str
    """File name in the source folder."""
    state: State
    number: int = 0
    """Its place among the source pictures, from 0."""
    sha256: str = ""
    """Of the source file's bytes; empty when it could not be read."""
    made_with: str = ""
    """`hash_options` of the options, and the rules' number."""
    text: str = ""
    """What was written beside the source picture, where the options use it."""
    width: int = 0
    height: int = 0
    fingerprint: str = ""
    sharpness: float = 0.0
    enlargement: float = 0.0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reason: str = ""
    outputs: tuple[Output, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    """Name in the destination -> SHA-256, of everything that was written for it."""


@dataclass(frozen=True)
class _Document:
    format: int
    source: str
    options: dict[str, object]
    pictures: tuple[Entry, ...]


_ENTRY = TypeAdapter(Entry)
_DOCUMENT = TypeAdapter(_Document)


class Record:
    """The record of one destination, in memory; `read_record` makes it."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self.source = source
        self.entries: dict[str, Entry] = {}
        self._owned: dict[str, set[str]] = {}
        self._unfolded = False
        self.changed: list[str] = []
        """Files of ours that newer ones stand for, but that were changed by hand and so are still there."""

    def take(self, entry: Entry) -> None:
        """Let an entry stand for its source picture from now on; what it names is ours."""
        self.entries[entry.source] = entry
        for name, sha256 in entry.files.items():
            self._owned.setdefault(name, set()).add(sha256)

    @property
    def complete(self) -> bool:
        """Whether `preprocess.json` holds all that is known."""
        return not self._unfolded and (self.folder / RECORD).exists() and not (self.folder / JOURNAL).exists()

    def note(self, entry: Entry) -> None:
        """Write an entry down, before the files that it names are written. Raises VocableError `disk.*`."""
        append(self.folder / JOURNAL, json.dumps(asdict(entry)).encode() + b"\n")
        self.take(entry)

    def standing(self, name: str, sha256: str) -> Standing:
        """What lies under a name where bytes of this hash are expected. Raises VocableError `disk.read`."""
        path = self.folder / name
        try:
            if path.is_symlink() or (path.exists() and not path.is_file()):
                return "foreign"
            found = hash_bytes(path.read_bytes())
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            raise VocableError(
                "disk.read", f"{path} could not be read ({error.strerror}).", "Check its permissions."
            ) from error
        if found == sha256:
            return "ours"
        return "older" if found in self._owned.get(name, ()) else "foreign"

    def read_to_move(self, files: dict[str, str]) -> list[bytes] | None:
        """The bytes of files that go to other names; None when one is gone or another picture's has taken its place.

        What was changed by hand, such as a corrected caption, goes along: once it is read here, it is ours to remove
        from its old name.
        """
        blobs = []
        for name, sha256 in files.items():
            if self.standing(name, sha256) not in ("ours", "foreign"):
                return None
            blobs.append((self.folder / name).read_bytes())
            self._owned.setdefault(name, set()).add(hash_bytes(blobs[-1]))
        return blobs

    def remove_strays(self) -> None:
        """Remove files of ours that no entry names any more; those that were changed by hand stay, in `changed`."""
        named = {name for entry in self.entries.values() for name in entry.files}
        for name in sorted(self._owned.keys() - named):
            if not self._remove(name):
                self.changed.append(name)
            del self._owned[name]

    def files_of(self, source: str) -> list[str]:
        """Names of a source picture's files that are there and that no other picture claims by now."""
        others = {name for other in self.entries.values() if other.source != source for name in other.files}
        names = self.entries[source].files
        return [name for name in names if name not in others and os.path.lexists(self.folder / name)]

    def remove_entry(self, source: str) -> tuple[list[str], list[str]]:
        """Forget a source picture and remove its files; returns those removed and those that were changed and stay."""
        names = self.files_of(source)
        removed = [name for name in names if self._remove(name)]
        del self.entries[source]
        self._unfolded = True
        return removed, [name for name in names if name not in removed]

    def fold(self, options: dict[str, object]) -> None:
        """Write `preprocess.json` anew and drop the journal. Raises VocableError `disk.*`."""
        pictures = tuple(sorted(self.entries.values(), key=lambda entry: (entry.number, entry.source)))
        document = _Document(FORMAT, self.source, options, pictures)
        text = json.dumps(asdict(document), indent=1)
        write_atomically(self.folder / RECORD, text.encode() + b"\n")
        (self.folder / JOURNAL).unlink(missing_ok=True)
        self._unfolded = False

    def _remove(self, name: str) -> bool:
        """Remove a file if it is ours; True when it is gone."""
        standing = self.standing(name, "")
        if standing == "older":
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()
        return standing in ("older", "missing")


def read_record(folder: Path, source: Path) -> Record:
    """Read what is known of a destination: nothing when it is new.

    Raises:
        VocableError: `preprocess.record` when it is damaged or tells of another source folder.
    """
    record = Record(folder, str(source))
    for entry in _read_document(folder / RECORD, source):
        record.take(entry)
    for entry in _read_journal(folder / JOURNAL):
        record.take(entry)
    return record


def _read_document(path: Path, source: Path) -> Iterable[Entry]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from error
    try:
        document = _DOCUMENT.validate_python(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it does not hold what it should ({str(error).splitlines()[0]})") from None
    if document.format != FORMAT:
        raise _damaged(path, f"its format is {document.format}, not {FORMAT}")
    if not all(_lawful(name) for entry in document.pictures for name in entry.files):
        raise _damaged(path, "it names files elsewhere")
    if not all(map(_is_sound, document.pictures)):
        raise _damaged(path, "the fingerprint of a picture is none")
    if document.source != str(source):
        title = f"'{path.parent}' holds pictures that were prepared from '{document.source}', not from '{source}'."
        hint = f"Choose another destination; or, if the source was moved, remove {RECORD} and prepare them again."
        raise VocableError("preprocess.record", title, hint)
    return document.pictures


def _read_journal(path: Path) -> Iterator[Entry]:
    """The entries of work that was cut short; what its last line lacks was not written either."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            entry = _ENTRY.validate_python(json.loads(line))
            if all(_lawful(name) for name in entry.files) and _is_sound(entry):
                yield entry


def _lawful(name: str) -> bool:
    """Whether a name leads to a file of the destination, or of its folder for debug pictures, and nowhere else."""
    own = name.removeprefix(f"{DEBUG_FOLDER}/")
    return own not in ("", ".", "..") and "/" not in own and "\0" not in own


def _is_sound(entry: Entry) -> bool:
    """Whether an entry has what its picture is compared with others by; one that failed has none."""
    if entry.state == "failed":
        return True
    try:
        Fingerprint.from_text(entry.fingerprint)
    except ValueError:
        return False
    return True


def _damaged(path: Path, why: str) -> VocableError:
    hint = "Move it away; pictures that are already there and equal to what would be made are taken as they are."
    return VocableError("preprocess.record", f"'{path}' cannot be used: {why}.", hint)
