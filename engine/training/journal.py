"""The journal of a run's dataset: from which step on which pictures with which captions were trained on.

Written and read by training. `dataset.jsonl` in the run's folder only grows, a line for each change, on disk before the
first step that depends on it; so a resume shows the same pictures at the same steps, whatever the folder holds by then.
Each line carries a hash of itself and of the line before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.dataset.manifest import Entry, Manifest, sort_manifest
from engine.errors import VocableError
from engine.files import append, sync, write_atomically

JOURNAL = "dataset.jsonl"


@dataclass(frozen=True)
class Record:
    """One set of pictures, and since when it is trained on."""

    after_step: int
    """Updates done when it takes over."""
    epoch: int
    """Number of the epoch that begins with it, from 0."""
    manifest: Manifest


@dataclass
class Journal:
    """The journal of one run, in memory and on disk."""

    path: Path
    records: list[Record] = field(default_factory=list)
    """By step; none before the first `begin`."""
    checks: list[str] = field(default_factory=list)
    """Hash of each line."""
    fault: str = ""
    """What is wrong with the file, as the end of a sentence; it holds for as long as the process runs."""

    @property
    def mark(self) -> dict[str, Any]:
        """Names the journal as it is now, for checkpoints."""
        return {"lines": len(self.checks), "check": self.checks[-1] if self.checks else ""}

    def follows(self, mark: Mapping[str, Any] | None) -> bool:
        """Whether this is the journal that `mark` named, perhaps with more lines by now."""
        lines = mark["lines"] if mark else 0
        return 0 < lines <= len(self.checks) and mark is not None and self.checks[lines - 1] == mark["check"]

    def begin(self, after_step: int, epoch: int, manifest: Manifest) -> None:
        """Say that from a step on the pictures are these, whatever was said of that step and later ones.

        Raises:
            VocableError: `disk.full` or `disk.write`; nothing is noted then.
        """
        self._append({"after_step": after_step, "epoch": epoch, "anew": True, "pictures": _plain(manifest)})

    def change(self, after_step: int, epoch: int, manifest: Manifest) -> None:
        """Note a set that takes over from the newest one, which began at an earlier step. Raises as `begin`."""
        before = self.records[-1].manifest
        changed = {name: entry for name, entry in manifest.items() if before.get(name) != entry}
        removed = [name for name in before if name not in manifest]
        self._append({"after_step": after_step, "epoch": epoch, "pictures": _plain(changed), "removed": removed})

    def _append(self, values: dict[str, Any]) -> None:
        check = _check(self.checks[-1] if self.checks else "", values)
        record = _read_record(values, self.records)
        append(self.path, (json.dumps({**values, "check": check}) + "\n").encode("ascii"))
        sync(self.path)
        self._take(record, check)

    def _take(self, record: Record, check: str) -> None:
        self.records = [old for old in self.records if old.after_step < record.after_step] + [record]
        self.checks.append(check)


def can_repeat(folder: Path) -> bool:
    """Whether the run in `folder` went so far that it can go on by its journal, without its dataset's folder."""
    return (folder / JOURNAL).is_file() and any((folder / "checkpoints").glob("[0-9]*"))


def open_journal(folder: Path) -> Journal:
    """Read the journal of the run in `folder`; there may be none.

    A last line that was not written whole counts as not written: no step depended on it. What does not verify is moved
    aside with all that follows, and `fault` says so.

    Raises:
        VocableError: `disk.*` when the file cannot be read, or not be mended.
    """
    journal = Journal(folder / JOURNAL)
    try:
        data = journal.path.read_bytes()
    except FileNotFoundError:
        return journal
    except OSError as error:
        title = f"{journal.path} cannot be read ({error.strerror})."
        raise VocableError("disk.read", title, "Check the disk and the folder's permissions.") from error
    *lines, torn = data.split(b"\n")
    whole = 0
    for line in lines:
        try:
            values = json.loads(line)
            check = values.pop("check")
            if check != _check(journal.checks[-1] if journal.checks else "", values):
                raise ValueError("the hash is another")
            record = _read_record(values, journal.records)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            journal.fault = f"line {len(journal.checks) + 1} of {journal.path.name} is damaged"
            break
        journal._take(record, check)
        whole += len(line) + 1
    if journal.fault:
        write_atomically(_free_name(journal.path), data)
    if journal.fault or torn:
        write_atomically(journal.path, data[:whole])
    return journal


def _read_record(values: Mapping[str, Any], before: list[Record]) -> Record:
    """Raises KeyError, TypeError, ValueError or IndexError for what is no line of a journal."""
    entries = {name: Entry(str(entry["sha256"]), str(entry["caption"])) for name, entry in values["pictures"].items()}
    if not values.get("anew"):
        removed = set(values["removed"])
        kept = {name: entry for name, entry in before[-1].manifest.items() if name not in removed}
        if int(values["after_step"]) <= before[-1].after_step:
            raise ValueError("the steps do not grow")
        entries = {**kept, **entries}
    if not entries:
        raise ValueError("no pictures")
    return Record(int(values["after_step"]), int(values["epoch"]), sort_manifest(entries))


def _plain(manifest: Manifest) -> dict[str, Any]:
    return {name: asdict(entry) for name, entry in manifest.items()}


def _check(before: str, values: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{before} {json.dumps(values, sort_keys=True)}".encode()).hexdigest()


def _free_name(path: Path) -> Path:
    number = 1
    while (target := path.with_name(f"{path.stem}-damaged-{number}{path.suffix}")).exists():
        number += 1
    return target
