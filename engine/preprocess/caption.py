"""Who words captions: BLIP, a tagger, or the starter model's own labels, opened alike.

Called by the process that prepares pictures, and by the service, which looks first whether all is there. No torch is
imported before a BLIP is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.preprocess.caption_blip import check_blip, open_blip
from engine.preprocess.caption_tagger import check_tagger, open_tagger
from engine.preprocess.request import Captions

_RULE = 1
"""Counts up when the same weights would word a caption differently."""

_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class CaptionModels:
    """Folders of weights, from the settings."""

    blip: Path
    tagger: Path


@dataclass(frozen=True)
class ModelCaptioner:
    """A `run.Captioner` that words one picture after the other."""

    identity: str
    word: Callable[[Image.Image], str]

    def caption(self, pictures: Sequence[Image.Image], source: Path) -> list[str]:
        return [self.word(picture) for picture in pictures]


def identify_captioner(captions: Captions, models: CaptionModels) -> str:
    """What tells this captioner from every other; empty when none is asked for.

    Raises:
        VocableError: `caption.missing`, `caption.extra` or `caption.unreadable`, when it could not be opened.
    """
    if captions.make == "blip":
        check_blip(models.blip)
        return f"blip {_RULE} {_fingerprint(models.blip)}"
    if captions.make == "tags":
        check_tagger(models.tagger)
        return f"tags {_RULE} {_fingerprint(models.tagger)}"
    return f"starter {_RULE}" if captions.make == "starter" else ""


def open_captioner(captions: Captions, models: CaptionModels, *, device: str) -> ModelCaptioner | None:
    """Load what words the captions; None when nothing does.

    Args:
        device: where a model runs, as torch names it: `cpu`, `cuda`.

    Raises:
        VocableError: as `identify_captioner`.
    """
    identity = identify_captioner(captions, models)
    if captions.make == "blip":
        return ModelCaptioner(identity, open_blip(models.blip, device=device, search=captions.blip))
    if captions.make == "tags":
        return ModelCaptioner(identity, open_tagger(models.tagger, device=device, rules=captions.tags))
    if captions.make == "starter":
        from engine.preprocess.caption_starter import label_portrait

        return ModelCaptioner(identity, label_portrait)
    return None


def _fingerprint(folder: Path) -> str:
    """Twelve hexadecimal digits of the folder's files: name, size, and the content of both ends. Reading gigabytes of
    weights through would take longer than captioning a handful of pictures."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        with path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode(errors="surrogateescape"))
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]
