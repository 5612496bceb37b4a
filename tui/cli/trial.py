"""What the demo asks of the service and of the workspace: a free name, a folder of pictures, losses, test pictures.

Used by `demo` alone; knows nothing of the sample character.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from daemon.client import Client
from daemon.protocol.jobs import EvaluateRequest, GenerateRequest
from engine.errors import VocableError
from tui.cli.jobs import finish_job
from tui.cli.progress import Progress


def place_folder(source: Path, target: Path) -> Path:
    """Copy a folder of files to `target`, or, when something else is there, beside it under the next free name."""
    place, number = target, 1
    while place.exists():
        if _content(place) == _content(source):
            return place
        number += 1
        place = target.with_name(f"{target.name} {number}")
    temporary = place.with_name(f".{place.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(place)
    return place


async def find_free_name(client: Client, wanted: str) -> str:
    """`wanted`, with a number when a word or a run of that name is there already."""
    taken = {word.name for word in await client.words()} | {run.name for run in await client.runs()}
    numbered = (f"{wanted}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (wanted, *numbered) if name not in taken)


async def check_word(client: Client, name: str) -> None:
    """Make sure that prompts can use a word whose run has finished; else they would take its name for plain text.

    Raises:
        VocableError: `word.unusable` with the reason.
    """
    word = next((word for word in await client.words() if word.name == name), None)
    if word is None or not word.usable:
        reason = word.reason if word else "the service has not noticed its file"
        raise VocableError("word.unusable", f"'{name}' cannot be used in prompts: {reason}.", "See: vocable words")


async def evaluate_phrases(
    client: Client, phrases: Sequence[str], folder: Path, template: str, seed: int, progress: Progress
) -> list[float]:
    """Loss on the pictures of `folder` with each phrase in the place of the name, the same noise for all."""
    request = EvaluateRequest.model_validate(
        {"folder": str(folder), "template": template, "phrases": list(phrases), "seed": seed}
    )
    result = await finish_job(client, await client.evaluate(request), progress, "evaluating on held-out pictures")
    return [float(loss) for loss in result["losses"]]


async def draw_prompts(
    client: Client, prompts: Sequence[str], output: Path, cfg_scale: float, seed: int, progress: Progress
) -> list[Path]:
    """One picture for each prompt, all from the same seed, numbered after the name of `output`."""
    request = GenerateRequest.model_validate(
        {"prompts": list(prompts), "cfg_scale": cfg_scale, "seed": seed, "output": str(output)}
    )
    result = await finish_job(client, await client.generate(request), progress, f"drawing {output.stem}")
    return [Path(path) for path in result["pictures"]]


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
