"""Who words captions: BLIP, a tagger, or the starter model's own labels, opened alike.

Called by the process that prepares pictures. No torch is imported before a BLIP is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.preprocess.caption_blip import open_blip
from engine.preprocess.caption_files import CaptionModels, identify_captioner
from engine.preprocess.caption_tagger import open_tagger
from engine.preprocess.request import Captions


@dataclass
class ModelCaptioner:
    """A `run.Captioner` that words one picture after the other."""

    identity: str
    word: Callable[[Image.Image], str]

    def caption(self, pictures: Sequence[Image.Image], source: Path) -> list[str]:
        return [self.word(_on_white(picture)) for picture in pictures]


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


def _on_white(picture: Image.Image) -> Image.Image:
    """What people see of a picture whose transparency was kept: not the colours below it."""
    if picture.mode != "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
