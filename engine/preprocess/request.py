"""What shall be done to a folder of pictures: one typed object for API, command line and form.

Each field's description is its help text everywhere. No torch, no Pillow, no cv2; nothing here touches the disk.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field, model_validator

from engine.recipe import Group

Objective = Literal["area", "error"]
Alpha = Literal["flatten", "keep"]
Existing = Literal["ignore", "copy", "prepend", "append"]
CaptionMaker = Literal["none", "blip", "tags", "starter"]
CaptionPlace = Literal["txt", "name"]
Duplicates = Literal["off", "warn", "skip"]


class Split(Group):
    """Long pictures become several that overlap."""

    enabled: bool = Field(False, description="Cut pictures much longer than the size into pieces that overlap.")
    threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Cut when the proportions divided by those of the size are at most this; 1 cuts all that differ.",
    )
    overlap: float = Field(0.2, ge=0, le=0.9, description="Part of a piece that it shares with the next, 0 to 0.9.")


class FocalCrop(Group):
    """Cut where something is to be seen, and not just in the middle."""

    enabled: bool = Field(False, description="Move the crop to the picture's focal point.")
    face_weight: float = Field(0.9, ge=0, le=1, description="How much faces count; 0 does not look for them.")
    entropy_weight: float = Field(0.15, ge=0, le=1, description="How much the richest region counts; 0 ignores it.")
    edges_weight: float = Field(0.5, ge=0, le=1, description="How much corners and edges count; 0 ignores them.")
    debug: bool = Field(False, description="Also draw what was found, into the folder debug of the destination.")


class AutoSize(Group):
    """Choose each picture's size after its proportions, for training in buckets."""

    enabled: bool = Field(
        False, description="Crop each picture to the size, in steps of 64 pixels, that suits it best."
    )
    min_dim: int = Field(384, ge=64, le=2048, multiple_of=8, description="Least width and height, in pixels.")
    max_dim: int = Field(768, ge=64, le=2048, multiple_of=8, description="Greatest width and height, in pixels.")
    min_area: int = Field(4096, ge=4096, le=4194304, description="Least width times height, in pixels.")
    max_area: int = Field(409600, ge=4096, le=4194304, description="Greatest width times height, in pixels.")
    objective: Objective = Field("area", description="Prefer the largest area, or the least error of the proportions.")
    threshold: float = Field(
        0.1, ge=0, le=1, description="Greatest error of the proportions; a picture that no size suits is left out."
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> AutoSize:
        if self.min_dim > self.max_dim:
            raise ValueError(f"min_dim {self.min_dim} is greater than max_dim {self.max_dim}")
        if self.min_area > self.max_area:
            raise ValueError(f"min_area {self.min_area} is greater than max_area {self.max_area}")
        return self


class Blip(Group):
    """How the BLIP model words a caption."""

    beams: int = Field(1, ge=1, le=16, description="Beams of the search; more are slower and mostly better.")
    min_tokens: int = Field(24, ge=0, le=200, description="Least length of a caption, in tokens.")
    max_tokens: int = Field(48, ge=1, le=256, description="Greatest length of a caption, in tokens.")
    no_repeat: int = Field(
        0, ge=0, le=16, description="A run of so many tokens comes only once in a caption; 0 lets them repeat."
    )


class Tags(Group):
    """How a tagger's findings become a caption."""

    threshold: float = Field(0.5, ge=0, le=1, description="Least score of a general tag.")
    character_threshold: float = Field(0.85, ge=0, le=1, description="Least score of a character's name.")
    sort: Literal["score", "name"] = Field("score", description="Order of the tags.")
    spaces: bool = Field(True, description="Write blanks for the underscores in tags.")
    escape: bool = Field(True, description="Put a backslash before brackets and backslashes, as prompts need it.")
    weights: bool = Field(False, description="Write each tag with its score, like (hat:0.95).")
    exclude: str = Field("", max_length=10_000, description="Tags that are left out, separated by commas.")


class Captions(Group):
    """What is written about each picture."""

    existing: Existing = Field(
        "ignore",
        description="Text beside a source picture: ignore it, copy it in place of a made caption, "
        "or put it before (prepend) or after (append) one.",
    )
    make: CaptionMaker = Field(
        "none", description="Who words a caption: nobody, BLIP, a tagger, or the starter model's own labels."
    )
    save_to: CaptionPlace = Field(
        "txt", description="Write captions into text files beside the pictures, or their names."
    )
    blip: Blip = Field(default_factory=Blip)
    tags: Tags = Field(default_factory=Tags)


class Checks(Group):
    """What is warned of; nothing here changes a picture."""

    blur: float = Field(
        30.0,
        ge=0,
        le=100_000,
        description="Warn of pictures less sharp than this (variance of the Laplacian of their grey values, "
        "the short side at most 512 pixels); 0 turns it off.",
    )
    enlargement: float = Field(
        1.0, ge=0, le=100, description="Warn of pictures that have to be enlarged more than this many times; 0 never."
    )
    duplicates: Duplicates = Field("warn", description="Pictures that look the same: do not look, warn, or leave out.")
    distance: int = Field(
        6, ge=0, le=32, description="Bits of 64 in which the fingerprints of two such pictures may differ."
    )


class PreprocessOptions(Group):
    """The steps. Those that are enabled each write their own pictures; where none does, a picture is just resized."""

    width: int = Field(512, ge=64, le=2048, multiple_of=8, description="Width in pixels.")
    height: int = Field(512, ge=64, le=2048, multiple_of=8, description="Height in pixels.")
    flip: bool = Field(False, description="Write a mirrored copy of each picture as well.")
    split: Split = Field(default_factory=Split)
    focal_crop: FocalCrop = Field(default_factory=FocalCrop)
    auto_size: AutoSize = Field(default_factory=AutoSize)
    keep_size: bool = Field(False, description="Also write each picture in its own size.")
    alpha: Alpha = Field("flatten", description="Transparency: lay the picture on a colour, or keep it as a mask.")
    background: str = Field(
        "#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", description="Colour under transparent parts, like #ffffff."
    )
    captions: Captions = Field(default_factory=Captions)
    checks: Checks = Field(default_factory=Checks)
    remove_left: bool = Field(
        False, description="Remove files made earlier from pictures that the source folder does not hold any more."
    )


class PreprocessRequest(Group):
    """A folder of pictures, where the prepared ones go, and how."""

    source: str = Field(
        min_length=1, max_length=4096, description="Folder of pictures: a path, or the name of a folder in datasets/."
    )
    destination: str = Field(
        min_length=1,
        max_length=4096,
        description="Folder for the prepared pictures, made when missing: a path, or a name for a folder in datasets/.",
    )
    options: PreprocessOptions = Field(default_factory=PreprocessOptions)


def hash_options(options: PreprocessOptions, captioner: str = "") -> str:
    """Twelve hexadecimal digits that change when an option would change what is written for a picture.

    Args:
        captioner: `Captioner.identity` of what words the captions; empty for none.
    """
    deciding = options.model_dump(exclude={"checks", "remove_left"})
    text = json.dumps({"options": deciding, "captioner": captioner}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
