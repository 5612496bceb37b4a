"""What becomes of one source picture: left as it is, made, left out as a duplicate, or named as failed.

Called by run for one picture after the other, in the order of their names. The invariant: what is written down of a
picture is true before and after every single write.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from engine.dataset.pictures import read_picture
from engine.errors import VocableError
from engine.files import write_atomically
from engine.preprocess.crew import Crew
from engine.preprocess.folders import DEBUG_FOLDER
from engine.preprocess.geometry import warn_of_size
from engine.preprocess.likeness import Fingerprint, LookAlikes
from engine.preprocess.prepare import Facts, Piece, Prepared
from engine.preprocess.record import Entry, Record
from engine.preprocess.request import PreprocessOptions
from engine.preprocess.results import Output, PictureResult
from engine.preprocess.texts import combine, hash_bytes, name_stem, read_existing, short_stem


class Captioner(Protocol):
    """Words what pictures show."""

    identity: str
    """Changes with everything that changes a caption: kind, weights' hash. The request's settings need not be in it."""

    def caption(self, pictures: Sequence[Image.Image], source: Path) -> list[str]:
        """One caption for each picture (mode RGB or RGBA, flipped copies among them) made of the file `source`.

        Raises:
            VocableError: captions cannot be made at all; it ends the job.
        """


@dataclass
class Pending:
    """A picture that was looked at: it is as it was, or is being prepared, or cannot be read."""

    source: Path
    number: int
    """Its place among the source pictures, from 0."""
    text: str = ""
    """What is written beside it, where the options use that."""
    old: Entry | None = None
    """Of an earlier run, when it still holds."""
    coming: Future[Prepared] | None = None
    fault: VocableError | None = None


class Settler:
    """Settles the pictures of one run.

    Args:
        made_with: what the options and the captioner come to, as `request.hash_options` says it.
        digits: of the numbers in names.
    """

    def __init__(
        self,
        options: PreprocessOptions,
        record: Record,
        crew: Crew,
        captioner: Captioner | None,
        cancel: Callable[[], bool],
        *,
        made_with: str,
        digits: int,
    ) -> None:
        self._options = options
        self._record = record
        self._crew = crew
        self._captioner = captioner
        self._cancel = cancel
        self._made_with = made_with
        self._digits = digits
        self._look_alikes = LookAlikes(options.checks.distance)

    def begin(self, source: Path, number: int) -> Pending:
        """Look at a picture, and have it prepared in the background unless what is there already will do."""
        pending = Pending(source, number)
        try:
            if self._options.captions.existing != "ignore":
                pending.text = read_existing(source)
            old = self._record.entries.get(source.name)
            if old and self._holds(old, source, pending.text):
                pending.old = old
            else:
                pending.coming = self._crew.prepare(source)
        except VocableError as error:
            pending.fault = error
        return pending

    def finish(self, pending: Pending) -> PictureResult | None:
        """Decide, and write what was prepared; `coming` must be done.

        Returns:
            None when it was cancelled, or when it turns out that the picture has to be prepared after all: ask again
            when `coming` is done.

        Raises:
            VocableError: `disk.*`, and what the captioner raises.
        """
        try:
            return self._decide(pending)
        except VocableError as error:
            if error.code.startswith(("dataset.", "preprocess.")):
                return self._fail(pending, error)
            raise

    def _holds(self, old: Entry, source: Path, text: str) -> bool:
        """Whether an earlier run's entry is of these bytes and options, and its files are still there."""
        same = old.made_with == self._made_with and old.text == text
        if not same or old.state == "failed" or (old.state == "duplicate" and not self._skips_duplicates):
            return False
        if hash_bytes(read_picture(source)) != old.sha256:
            return False
        return all(self._record.standing(name, sha256) in ("ours", "foreign") for name, sha256 in old.files.items())

    @property
    def _skips_duplicates(self) -> bool:
        return self._options.checks.duplicates == "skip"

    def _decide(self, pending: Pending) -> PictureResult | None:
        if pending.fault:
            raise pending.fault
        prepared = pending.coming.result() if pending.coming else None
        facts = prepared.facts if prepared else _facts_of(pending.old)
        twin = self._find_twin(pending.source.name, facts)
        if twin and self._skips_duplicates:
            return self._leave_out(pending, facts, twin)
        warnings = self._warnings(facts, twin)
        if prepared:
            return self._make(pending, prepared, warnings)
        kept = self._keep(pending, warnings)
        if kept is None:
            pending.coming = self._crew.prepare(pending.source)
        return kept

    def _find_twin(self, name: str, facts: Facts) -> str:
        """A sentence that names the earlier picture that this one looks like; empty when there is none."""
        if self._options.checks.duplicates == "off":
            return ""
        mark = Fingerprint.from_text(facts.fingerprint)
        twin = self._look_alikes.find(mark)
        if twin is None:
            self._look_alikes.add(name, mark)
        if twin is None or twin[0] == name:
            return ""
        return f"It looks like '{twin[0]}' ({twin[1]} of 64 bits differ)."

    def _warnings(self, facts: Facts, twin: str) -> tuple[str, ...]:
        found = [twin] if twin else []
        found += warn_of_size(facts.width, facts.height, facts.enlargement, self._options)
        least = self._options.checks.blur
        if facts.sharpness < least:
            found.append(f"It looks blurred: its sharpness is {facts.sharpness:g}, less than {least:g}.")
        return tuple(found)

    def _keep(self, pending: Pending, warnings: tuple[str, ...]) -> PictureResult | None:
        """Leave what an earlier run made, but for a new number; None when it cannot be had."""
        old = pending.old
        if old is None or old.state != "made":
            return None
        moved = _renumber(old, pending.number, self._digits)
        if moved.files != old.files:
            blobs = self._record.read_to_move(old.files)
            if blobs is None:
                return None
            entry = replace(moved, warnings=warnings)
            return self._write(pending, entry, dict(zip(moved.files, blobs, strict=True)))
        changed = [name for name, sha256 in old.files.items() if self._record.standing(name, sha256) == "foreign"]
        told = (f"'{name}' was changed after it was made; it is left as it is." for name in changed)
        return _result(replace(old, state="unchanged", warnings=(*warnings, *told)))

    def _make(self, pending: Pending, prepared: Prepared, warnings: tuple[str, ...]) -> PictureResult | None:
        captions = self._captions(pending, prepared)
        if captions is None:
            return None
        outputs, blobs = [], {}
        for count, (piece, caption) in enumerate(zip(prepared.pieces, captions, strict=True)):
            in_name = caption if self._options.captions.save_to == "name" else ""
            stem = name_stem(pending.number, self._digits, count, pending.source, in_name)
            outputs.append(Output(f"{stem}.png", piece.step, piece.width, piece.height, piece.flipped, caption))
            blobs[f"{stem}.png"] = piece.data
            if caption and not in_name:
                blobs[f"{stem}.txt"] = f"{caption}\n".encode()
        if prepared.debug:
            number = f"{pending.number:0{self._digits}}"
            blobs[f"{DEBUG_FOLDER}/{number}-{short_stem(pending.source)}.png"] = prepared.debug
        files = {name: hash_bytes(data) for name, data in blobs.items()}
        entry = self._entry(pending, prepared.facts)
        return self._write(pending, replace(entry, warnings=warnings, outputs=tuple(outputs), files=files), blobs)

    def _captions(self, pending: Pending, prepared: Prepared) -> list[str] | None:
        """A caption for each piece; None when cancelled, as a model may take seconds for one."""
        how, captions = self._options.captions.existing, []
        wanted = self._captioner is not None and not (how == "copy" and pending.text)
        for piece in prepared.pieces:
            made = ""
            if self._captioner and wanted:
                if self._cancel():
                    return None
                (made,) = self._captioner.caption([_picture(piece)], pending.source)
            captions.append(combine(pending.text, " ".join(made.split()), how))
        return captions

    def _write(self, pending: Pending, entry: Entry, blobs: dict[str, bytes]) -> PictureResult:
        """Write what is not there yet, once the entry that claims it is written down."""
        standings = {name: self._record.standing(name, entry.files[name]) for name in blobs}
        taken = [name for name, standing in standings.items() if standing == "foreign"]
        for name in taken:
            if name.endswith(".png"):
                title = f"'{name}' in the destination was not made here, or was changed since; it is left as it is."
                raise VocableError("preprocess.taken", title, "Move it away, or choose another destination.")
        kept = tuple(f"'{name}' was there already, of another hand; it is left as it is." for name in taken)
        self._record.note(entry)
        for name, data in blobs.items():
            if standings[name] in ("missing", "older"):
                write_atomically(self._record.folder / name, data, overwrite=standings[name] == "older")
        return _result(replace(entry, warnings=entry.warnings + kept))

    def _leave_out(self, pending: Pending, facts: Facts, twin: str) -> PictureResult:
        entry = replace(self._entry(pending, facts), state="duplicate", reason=twin)
        if pending.old != entry:
            self._record.note(entry)
        return _result(entry)

    def _fail(self, pending: Pending, error: VocableError) -> PictureResult:
        """What was made of an earlier state of the picture stays."""
        old = self._record.entries.get(pending.source.name, Entry(pending.source.name, "failed"))
        entry = replace(old, state="failed", number=pending.number, made_with="", reason=error.title)
        if entry != old:
            self._record.note(entry)
        return PictureResult(entry.source, "failed", reason=error.title)

    def _entry(self, pending: Pending, facts: Facts) -> Entry:
        return Entry(
            pending.source.name,
            "made",
            pending.number,
            made_with=self._made_with,
            text=pending.text,
            **asdict(facts),
        )


def _facts_of(entry: Entry | None) -> Facts:
    assert entry is not None
    return Facts(**{name: getattr(entry, name) for name in Facts.__dataclass_fields__})


def _result(entry: Entry) -> PictureResult:
    return PictureResult(entry.source, entry.state, entry.outputs, entry.notes, entry.warnings, entry.reason)


def _picture(piece: Piece) -> Image.Image:
    picture = Image.open(io.BytesIO(piece.data), formats=("PNG",))
    picture.load()
    return picture


def _renumber(entry: Entry, number: int, digits: int) -> Entry:
    """The entry as it would be with its source at another place in the folder."""

    def rename(name: str) -> str:
        folder, slash, own = name.rpartition("/")
        return f"{folder}{slash}{number:0{digits}}-{own.partition('-')[2]}"

    outputs = tuple(replace(output, name=rename(output.name)) for output in entry.outputs)
    files = {rename(name): sha256 for name, sha256 in entry.files.items()}
    return replace(entry, number=number, outputs=outputs, files=files)
