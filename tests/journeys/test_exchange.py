"""Words from other programs, and to them, by the real programs: dropped, used, converted, copied with a picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.models.catalog import find_model
from tests.journeys.conftest import Place

WIDTH = find_model("starter", []).width


def webui_file(path: Path, rows: torch.Tensor) -> None:
    torch.save(
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": rows},
            "name": "otherwise",
            "step": 40,
            "sd_checkpoint": "0123456789",
            "sd_checkpoint_name": "elsewhere",
        },
        path,
    )


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_a_word_of_another_program_is_used_converted_and_made_again_from_its_picture(
    place: Place, tmp_path: Path
) -> None:
    place.vocable("daemon", "start")
    rows = torch.from_numpy(np.random.default_rng(5).normal(scale=0.4, size=(3, WIDTH)).astype(np.float32))
    webui_file(tmp_path / "mylo.pt", rows)
    os.replace(tmp_path / "mylo.pt", place.root / "embeddings" / "mylo.pt")
    place.wait_for_words(lambda words: "mylo" in words)

    first = tmp_path / "first.png"
    made = place.json(
        "generate", "portrait of (mylo:1.2), [blue:red:0.5] background", "-o", str(first), "--steps", "3", "--seed", "8"
    )
    assert any("elsewhere" in warning for warning in made["warnings"])
    with Image.open(first) as image:
        assert 'TI hashes: "mylo: ' in image.info["parameters"]

    place.vocable("generate", "--like", str(first), "-o", str(tmp_path / "again.png"))
    assert pixels(tmp_path / "again.png") == pixels(first)

    carrier = place.root / "embeddings" / "carried.png"
    place.vocable("convert", str(place.root / "embeddings" / "mylo.pt"), "--to", "png", "-o", str(carrier))
    place.wait_for_words(lambda words: "carried" in words)
    place.vocable("generate", "portrait of (carried:1.2), [blue:red:0.5] background", "-o", str(tmp_path / "third.png"),
                  "--steps", "3", "--seed", "8")  # fmt: skip
    assert pixels(tmp_path / "third.png") == pixels(first)


def test_a_file_that_would_run_code_is_named_and_hides_no_other(place: Place, tmp_path: Path) -> None:
    canary = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(canary),)

    folder = place.root / "embeddings"
    folder.mkdir()
    torch.save({"string_to_param": {"*": Evil()}}, folder / "a.pt")
    torch.save({"string_to_param": {"*": Evil()}}, folder / "b.bin", _use_new_zipfile_serialization=False)
    webui_file(folder / "good.pt", torch.ones(1, WIDTH))
    place.vocable("daemon", "start")
    place.wait_for_words(lambda words: "good" in words)
    place.vocable("inspect", str(folder / "a.pt"), str(folder / "b.bin"), code=1)
    words = {word["name"]: word for word in json.loads(place.vocable("words", "--json").stdout)}
    assert words["a"]["verdict"] == words["b"]["verdict"] == "unreadable"
    assert "nothing in it was run" in words["a"]["reason"]
    assert words["good"]["usable"]
    assert not canary.exists()
