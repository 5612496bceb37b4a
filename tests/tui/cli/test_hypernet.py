"""Hypernetworks from the command line, before a real service with the starter model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.hypernetwork.read import read_hypernetwork
from engine.hypernetwork.write import is_same
from tests.daemon.networks import webui_file
from tests.tui.cli.conftest import PICTURES, Vocable


def listed(vocable: Vocable, name: str) -> dict[str, Any] | None:
    found = vocable.json("hypernet", "list")
    return next((network for network in found if network["name"] == name), None)


def test_a_new_one_is_usable_at_once_and_listed(vocable: Vocable) -> None:
    options = ("--sizes", "1,0.5,1", "--activation", "relu", "--init", "KaimingNormal", "--layer-norm")
    out, _ = vocable("hypernet", "new", "pencil", *options, "--dropout", "0,0.3,0")
    path = vocable.root / "hypernetworks" / "pencil.safetensors"
    assert out == f"{path}\n"
    made = read_hypernetwork(path.read_bytes(), "pencil")
    assert (made.sizes, made.dropout, made.layer_norm) == ((1, 0.5, 1), (0, 0.3, 0), True)
    network = listed(vocable, "pencil")
    assert network is not None
    assert (network["usable"], network["activation"], network["widths"]) == (True, "relu", [96, 128, 160])
    out, _ = vocable("hypernet", "list")
    assert out.splitlines()[0].split() == ["NAME", "LAYERS", "ACTIVATION", "WIDTHS", "STEP", "MODEL", "VERDICT"]
    assert any(line.startswith("pencil") and "1, 0.5, 1" in line for line in out.splitlines())


def test_a_name_is_taken_once_unless_replaced_and_what_goes_comes_back(vocable: Vocable) -> None:
    vocable("hypernet", "new", "chalk")
    assert "already" in vocable("hypernet", "new", "chalk", code=2)[1]
    assert vocable.json("hypernet", "new", "chalk", "--seed", "7", "--overwrite")["name"] == "chalk"
    path = vocable.root / "hypernetworks" / "chalk.safetensors"
    replaced = path.read_bytes()
    _, err = vocable("hypernet", "delete", "chalk")
    assert "hypernet restore chalk" in err
    assert not path.exists()
    assert listed(vocable, "chalk") is None
    assert vocable("hypernet", "restore", "chalk")[0] == f"{path}\n"
    assert path.read_bytes() == replaced
    network = listed(vocable, "chalk")
    assert network is not None
    assert network["usable"]
    vocable("hypernet", "restore", "chalk", code=2)
    vocable("hypernet", "delete", "nobody", code=2)


def test_words_are_renamed_deleted_and_taken_back_likewise(vocable: Vocable) -> None:
    vocable("new", "crayon")
    path = vocable.root / "embeddings" / "wax crayon.safetensors"
    assert vocable("words", "rename", "crayon", "wax crayon")[0] == f"{path}\n"
    assert "wax crayon" in {word["name"] for word in vocable.json("words")}
    assert "words restore 'wax crayon'" in vocable("words", "delete", "wax crayon")[1]
    assert not path.exists()
    assert vocable.json("words", "restore", "wax crayon")["path"] == str(path)
    vocable("words", "delete", "nobody", code=2)
    vocable("words", "rename", "wax crayon", "a/b", code=2)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--sizes", "1,x,1"), "no list of numbers"),
        (("--sizes", "1,2"), "does not begin and end with 1"),
        (("--activation", "wobble"), "activation"),
        (("--widths", "77"), "no attention 77 channels wide"),
        (("--dropout", "0,0"), "has 2 numbers where"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(vocable: Vocable, options: tuple[str, ...], part: str) -> None:
    _, err = vocable("hypernet", "new", "wrong", *options, code=2)
    assert part in err
    assert listed(vocable, "wrong") is None


def test_a_file_of_webui_is_inspected_converted_and_back_bit_for_bit(vocable: Vocable, tmp_path: Path) -> None:
    source = tmp_path / "oil.pt"
    source.write_bytes(webui_file(0.125, dropout=(0.0, 0.3, 0.0)))
    (report,) = vocable.json("inspect", str(source))["files"]
    assert (report["flavour"], report["words"], report["hypernetwork"]["fits"]) == ("webui-pt", [], True)
    out, _ = vocable("inspect", str(source))
    assert "hypernetwork  oil" in out
    assert "layers        1, 0.25, 1, relu" in out
    assert "dropout       0, 0.3, 0" in out
    ours = tmp_path / "oil.safetensors"
    assert vocable("convert", str(source), "-o", str(ours))[0] == f"{ours}\n"
    assert vocable.json("convert", str(ours), "--to", "webui-pt", "-o", str(tmp_path / "back.pt"))["kind"] == (
        "hypernetwork"
    )
    first, last = (read_hypernetwork(path.read_bytes(), "x") for path in (source, tmp_path / "back.pt"))
    assert is_same(first, last)
    _, err = vocable("convert", str(source), "--to", "png", "-o", str(tmp_path / "oil.png"), code=1)
    assert "cannot be written as png" in err


def test_an_optimizers_file_beside_one_is_told_of(vocable: Vocable, tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = torch.optim.AdamW([parameter], lr=1e-5)
    parameter.sum().backward()
    optimizer.step()
    values = {"optimizer_name": "AdamW", "hash": "0a1b2c3d4e", "optimizer_state_dict": optimizer.state_dict()}
    path = tmp_path / "oil.pt.optim"
    torch.save(values, path)
    (report,) = vocable.json("inspect", str(path))["files"]
    assert (report["error"], report["hypernetwork"], report["optimizer"]["step"]) == (None, None, 1)
    out, _ = vocable("inspect", str(path))
    assert "AdamW, of the hypernetwork 0a1b2c3d4e" in out
    assert "1 tensors, 12 numbers" in out


def test_a_dropped_file_is_found_in_prompts_and_unknown_ones_are_told(vocable: Vocable) -> None:
    folder = vocable.root / "hypernetworks"
    (folder / "water colour.pt").write_bytes(webui_file())
    deadline = time.monotonic() + 30
    while listed(vocable, "water colour") is None and time.monotonic() < deadline:
        pass
    prompt = "a girl <hypernet:Water Colour:0.7> <hypernet:nobody>"
    reply = vocable.json("tokens", prompt)
    assert reply["hypernetworks"] == ["water colour"]
    (note,) = reply["notes"]
    assert "no hypernetwork 'nobody'" in note
    assert reply["count"] == vocable.json("tokens", "a girl")["count"]


def test_a_broken_file_is_listed_with_its_reason(vocable: Vocable) -> None:
    (vocable.root / "hypernetworks" / "cut.pt").write_bytes(webui_file()[:-100])
    deadline = time.monotonic() + 30
    while listed(vocable, "cut") is None and time.monotonic() < deadline:
        pass
    network = listed(vocable, "cut")
    assert network is not None
    assert (network["usable"], network["verdict"]) == (False, "unreadable")
    assert len(network["reason"]) > 20


def test_a_run_trains_one_into_its_folder_and_prompts_use_it(vocable: Vocable, tmp_path: Path) -> None:
    vocable("new", "felt", "--init", "girl")
    settings = ("--set", "train.batch_size=1", "--set", "save.images_every=2", "--set", "preview.steps=1")
    settings += ("--set", "save.every=2", "--set", "train.learn_rate=1e-3", "--set", "start.sizes=[1, 0.5, 1]")
    out, err = vocable(
        "train", "--kind", "hypernetwork", "--name", "felt", "--images", PICTURES, "--steps", "3", *settings
    )
    path = vocable.root / "hypernetworks" / "felt.safetensors"
    assert out == f"{path}\n"
    assert "<hypernet:felt>" in err
    assert read_hypernetwork(path.read_bytes(), "felt").step == 3
    network = listed(vocable, "felt")
    assert network is not None
    assert (network["usable"], network["step"], network["model"]) == (True, 3, "starter")
    assert (vocable.root / "embeddings" / "felt.safetensors").is_file()
    run = vocable.json("show", "felt")
    assert (run["kind"], run["state"], run["embedding"]) == ("hypernetwork", "finished", str(path))
    assert (Path(run["folder"]) / "hypernetworks" / "felt-2.safetensors").is_file()
    shown = vocable("show", "felt")[0]
    assert f"hypernetwork  {path}" in shown
    assert "start.sizes=[1.0, 0.5, 1.0]" in shown
    assert "start.init_text" not in shown

    pictures = {}
    for prompt in (
        "portrait of a girl",
        "portrait of a girl <hypernet:felt:0>",
        "portrait of a girl <hypernet:felt:9>",
    ):
        output = tmp_path / f"{len(pictures)}.png"
        reply = vocable.json("generate", prompt, "--steps", "1", "--seed", "1", "-o", str(output))
        assert reply["warnings"] == []
        with Image.open(output) as image:
            pictures[prompt] = image.tobytes()
    bare, nothing, much = pictures.values()
    assert bare == nothing != much
    assert "no hypernetwork" in vocable("generate", "a <hypernet:nobody>", "--steps", "1", "-o", str(tmp_path))[1]
