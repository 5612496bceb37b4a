"""The sample character that the demo teaches: its pictures, its words, and the prompts that test the taught word.

Read by the demo, the tests and the benchmarks. Plain data and paths, no torch. The starter model never saw this
character's combination of attributes (see `attributes.held_out`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.models.starter.attributes import COLOURS, EXPRESSIONS, character
from engine.models.starter.captions import description
from engine.models.starter.measure import Scene

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ScenePrompt:
    """A prompt with `[name]` for the word, and the scene that its picture must show."""

    text: str
    scene: Scene


def _scene_prompt(index: int) -> ScenePrompt:
    background = COLOURS[index % len(COLOURS)]
    expression = EXPRESSIONS[(index + index // len(COLOURS)) % len(EXPRESSIONS)]
    return ScenePrompt(f"portrait of [name], {expression}, {background} background", Scene(background, expression))


CHARACTER_SEED = 5818
CHARACTER = character(CHARACTER_SEED)

TRAIN_DIR = _HERE / "sample" / "train"
"""12 pictures with a caption each that names only what varies: "smiling, green background"."""

HELD_OUT_DIR = _HERE / "sample" / "held_out"
"""8 more of the same kind, for measuring the loss; never trained on."""

INIT_WORD = CHARACTER.person
"""The word whose vectors the new embedding starts from."""

ORACLE_TEXT = description(CHARACTER)
"""The true description of the character, to stand in a prompt where the word stands."""

TEMPLATES = ("portrait of [name], [filewords]",)

PROMPTS = tuple(_scene_prompt(index) for index in range(32))
"""32 prompts on every background and with every expression, for `measure.identified`."""
