"""What the inspector said, by content: `cache/embeddings/SHA256.json`, and beside it the canonical safetensors file.

Used by the library. Everything here may be deleted at any time; it is then found out again.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.files import write_atomically

VERSION = 1
"""Counts up whenever the readers of `engine.embedding` accept or refuse other files than before."""


@dataclass(frozen=True)
class Verdict:
    """What a file holds: one embedding, or the error of reading it. Foreign text in it is not yet escaped."""

    vectors: int = 0
    width: int = 0
    step: int = 0
    model: str = ""
    code: str = ""
    """Code of the error; empty for a readable embedding."""
    title: str = ""
    hint: str = ""

    @property
    def readable(self) -> bool:
        return not self.code


class VerdictCache:
    """Verdicts on disk. Methods block for a disk access or two; call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def canonical(self, sha256: str) -> Path:
        """Where the canonical copy of a readable file lies."""
        return self._folder / f"{sha256}.safetensors"

    def find(self, sha256: str, stem: str) -> Verdict | None:
        """Return what is known of a content; None when nothing is, or when its canonical copy is lost.

        An error names the file it was first seen in, so it holds for that name only.
        """
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            values = json.loads(self._record(sha256).read_bytes())
            version, named = values.pop("version"), values.pop("stem")
            verdict = Verdict(**values)
            usable = self.canonical(sha256).is_file() if verdict.readable else named == stem
            if version == VERSION and usable:
                return verdict
        return None

    def keep(self, sha256: str, stem: str, verdict: Verdict, canonical: bytes) -> None:
        """Write a verdict down, the canonical copy first. Raises VocableError `disk.full` or `disk.write`."""
        if verdict.readable:
            write_atomically(self.canonical(sha256), canonical)
        record = {"version": VERSION, "stem": stem, **asdict(verdict)}
        write_atomically(self._record(sha256), json.dumps(record).encode())

    def _record(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"
