"""WD-style taggers, which name what a picture shows in tags, through `onnxruntime` (extra `tagger`).

Opened by caption.py, in the process that prepares pictures; no torch. The input and `selected_tags.csv` have
the form of SmilingWolf's taggers on the Hugging Face hub.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import VocableError
from engine.preprocess.caption_files import TAGGER_MODEL as MODEL
from engine.preprocess.caption_files import TAGGER_TAGS as TAGS
from engine.preprocess.caption_files import check_tagger, tagger_unreadable
from engine.preprocess.request import Tags

GENERAL, CHARACTER = 0, 4
"""Categories of tags that are used; 9 are ratings."""

_SIZE = 448
"""Side of the picture where the model leaves it open, in pixels."""

_EMOTICON = re.compile(r"[\W_]*\w?[\W_]*_[\W_]*\w?[\W_]*")
"""`^_^`, `o_o`, `(o)_(o)`: tags whose underscore is part of a face."""
_LONGEST_EMOTICON = 16
"""In characters. What is longer is none, and would be tried in too many ways."""

_LARGEST = 4096
"""Side of the largest picture that a model may take, in pixels."""

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tag:
    name: str
    category: int


def open_tagger(folder: Path, *, device: str, rules: Tags) -> Callable[[Image.Image], str]:
    """Load the tagger; what is returned gives a picture's tags, joined by commas.

    Raises:
        VocableError: `caption.extra`, `caption.missing`, `caption.unreadable`.
    """
    check_tagger(folder)
    tags = read_tags(folder / TAGS)
    session = _open_session(folder, device)
    inputs = session.get_inputs()
    form = _input_form(inputs[0].shape if len(inputs) == 1 else (), folder)

    def score(picture: Image.Image) -> _Floats:
        found = session.run(None, {inputs[0].name: _arrange(picture, form)})[0]
        return np.asarray(found, np.float32).reshape(-1)

    try:
        count = score(Image.new("RGB", (form.side, form.side), "white")).size
    except Exception as error:
        raise _unusable(folder, error) from error
    if count != len(tags):
        raise tagger_unreadable(folder, f"{MODEL} scores {count} tags, but {TAGS} names {len(tags)}")
    return lambda picture: ", ".join(choose_tags(tags, score(picture), rules))


def read_tags(path: Path) -> list[Tag]:
    """The tags in the order of the model's scores. Raises VocableError `caption.unreadable`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [Tag(row["name"], int(row["category"])) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise tagger_unreadable(
            path.parent, f"{path.name} is no table with the columns name and category ({error})"
        ) from None


def choose_tags(tags: Sequence[Tag], scores: _Floats, rules: Tags) -> list[str]:
    """The tags that reach their threshold as a caption writes them; by score, names of characters come first."""
    least = {GENERAL: rules.threshold, CHARACTER: rules.character_threshold}
    unwanted = {_plain(name) for name in rules.exclude.split(",")}
    found = [
        (tag, float(score))
        for tag, score in zip(tags, scores, strict=True)
        if tag.category in least and score >= least[tag.category] and _plain(tag.name) not in unwanted
    ]
    if rules.sort == "name":
        found.sort(key=lambda item: item[0].name)
    else:
        found.sort(key=lambda item: (item[0].category != CHARACTER, -item[1], item[0].name))
    return [_spell(tag.name, score, rules) for tag, score in found]


def _spell(name: str, score: float, rules: Tags) -> str:
    if rules.spaces and not (len(name) <= _LONGEST_EMOTICON and _EMOTICON.fullmatch(name)):
        name = name.replace("_", " ")
    if rules.escape:
        name = re.sub(r"([\\()])", r"\\\1", name)
    return f"({name}:{score:.3f})" if rules.weights else name


def _plain(name: str) -> str:
    return name.strip().replace("_", " ").casefold()


@dataclass(frozen=True)
class _Form:
    side: int
    channels_first: bool


def _input_form(shape: Sequence[Any], folder: Path) -> _Form:
    """How the model takes a picture; sides that it leaves open are names, not numbers."""
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise tagger_unreadable(folder, f"{MODEL} takes {list(shape)}, not one colour picture")
    channels_first = shape[3] != 3
    side = shape[2] if isinstance(shape[2], int) and shape[2] > 0 else _SIZE
    if side > _LARGEST:
        raise tagger_unreadable(folder, f"{MODEL} takes pictures of {side} pixels, more than {_LARGEST}")
    return _Form(side, channels_first)


def _arrange(picture: Image.Image, form: _Form) -> _Floats:
    """The picture on a white square, in the order blue, green, red, with values 0 to 255; (1, side, side, 3), or
    (1, 3, side, side) with channels first."""
    picture = picture.convert("RGB")
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    if longest != form.side:
        square = square.resize((form.side, form.side), Image.Resampling.BICUBIC)
    values = np.ascontiguousarray(np.asarray(square, np.float32)[None, :, :, ::-1])
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if form.channels_first else values


def _open_session(folder: Path, device: str) -> Any:
    import onnxruntime

    wanted = (
        ["CUDAExecutionProvider", "CPUExecutionProvider"] if device.startswith("cuda") else ["CPUExecutionProvider"]
    )
    there = onnxruntime.get_available_providers()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; its warnings tell of graph optimisations
    providers = [name for name in wanted if name in there]
    try:
        return onnxruntime.InferenceSession(str(folder / MODEL), options, providers=providers)
    except Exception as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: Exception) -> VocableError:
    """Of whatever onnxruntime raises: each fault of a file is one of a dozen classes without a common base."""
    reason = str(error).strip().partition("\n")[0][:300]
    return tagger_unreadable(folder, f"{MODEL} cannot be loaded ({reason})")
