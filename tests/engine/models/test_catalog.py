from __future__ import annotations

import errno
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import VocableError
from engine.models.catalog import ModelEntry, find_model, list_models

PARTS = [
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
]

Copy = Callable[[str], Path]


def change(folder: Path, part: str, **values: object) -> None:
    path = folder / part
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_starter_comes_first_and_other_folders_by_name(copy_starter: Copy, tmp_path: Path) -> None:
    copy_starter("zebra")
    copy_starter("Ant")
    assert [entry.name for entry in list_models([tmp_path])] == ["starter", "Ant", "zebra"]


def test_the_starter_tells_its_family_width_and_picture_size(starter_entry: ModelEntry) -> None:
    config = json.loads((starter_entry.path / "text_encoder/config.json").read_text())
    assert (starter_entry.family, starter_entry.width, starter_entry.size) == ("starter", config["hidden_size"], 64)


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2")])
def test_the_width_of_the_text_encoder_tells_the_family(copy_starter: Copy, width: int, family: str) -> None:
    folder = copy_starter("model")
    change(folder, "text_encoder/config.json", hidden_size=width)
    change(folder, "unet/config.json", cross_attention_dim=width, sample_size=96)
    entry = find_model(str(folder), [])
    assert (entry.family, entry.width, entry.size) == (family, width, 96 * 4)


def test_a_model_is_found_by_name_by_path_and_by_hash(copy_starter: Copy, tmp_path: Path) -> None:
    folder = copy_starter("models/mine")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"different")
    by_name = find_model("mine", [tmp_path / "models"])
    assert by_name.path == folder
    assert find_model(str(folder), []).path == folder
    assert find_model("models/mine", [tmp_path]).path == folder
    assert find_model(by_name.hash.upper(), [tmp_path / "models"]) == by_name


def test_other_weights_give_another_hash(copy_starter: Copy, starter_entry: ModelEntry) -> None:
    folder = copy_starter("mine")
    assert find_model(str(folder), []).hash == starter_entry.hash
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"other")
    assert find_model(str(folder), []).hash != starter_entry.hash


def test_no_folder_takes_the_name_of_the_starter(copy_starter: Copy, tmp_path: Path) -> None:
    copy_starter("starter")
    assert find_model("starter", [tmp_path]).path != tmp_path / "starter"


@pytest.mark.parametrize("reference", ["nothing", "", "~nobody/model", "x" * 4000, "a\0b", "0123456789"])
def test_an_unknown_model_is_refused_with_the_names_of_the_known_ones(reference: str, tmp_path: Path) -> None:
    with pytest.raises(VocableError, match="starter") as caught:
        find_model(reference, [tmp_path])
    assert caught.value.code == "model.unknown"


@pytest.mark.parametrize("part", PARTS)
def test_an_incomplete_folder_is_refused_with_the_missing_file(copy_starter: Copy, part: str) -> None:
    folder = copy_starter("model")
    (folder / part).unlink()
    with pytest.raises(VocableError, match=part) as caught:
        find_model(str(folder), [])
    assert caught.value.code == "model.unreadable"


@pytest.mark.parametrize("text", ["{", "[]", '{"hidden_size": "wide"}', "{}", "[" * 100_000])
def test_a_garbled_configuration_is_refused(copy_starter: Copy, text: str) -> None:
    folder = copy_starter("model")
    (folder / "text_encoder/config.json").write_text(text)
    with pytest.raises(VocableError) as caught:
        find_model(str(folder), [])
    assert caught.value.code == "model.unreadable"


def test_a_folder_for_another_task_is_refused_by_name(copy_starter: Copy) -> None:
    folder = copy_starter("model")
    change(folder, "unet/config.json", in_channels=8)
    with pytest.raises(VocableError, match=r"another task.*text-to-image"):
        find_model(str(folder), [])


def test_a_file_that_is_no_model_is_refused_by_what_it_is(tmp_path: Path) -> None:
    for name, reason in (("v1-5.ckpt", "neither safetensors nor"), ("v1-5.png", "neither a folder nor a checkpoint")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(VocableError, match=reason):
            find_model(name, [tmp_path])


def test_a_broken_folder_does_not_hide_the_others(copy_starter: Copy, tmp_path: Path) -> None:
    copy_starter("good")
    (copy_starter("broken") / "vae/config.json").unlink()
    assert [entry.name for entry in list_models([tmp_path, tmp_path / "absent"])] == ["starter", "good"]


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("unet/config.json", {"in_channels": float("inf")}),
        ("unet/config.json", {"sample_size": -8}),
        ("unet/config.json", {"sample_size": 10**3000}),
        ("vae/config.json", {"block_out_channels": [1] * 20_000}),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}),
    ],
)
def test_numbers_that_no_model_has_are_refused_and_hide_no_other_model(
    copy_starter: Copy, tmp_path: Path, part: str, values: dict[str, object]
) -> None:
    change(copy_starter("model"), part, **values)
    assert [entry.name for entry in list_models([tmp_path])] == ["starter"]
    with pytest.raises(VocableError, match=next(iter(values))):
        find_model("model", [tmp_path])


def test_a_file_that_could_not_be_opened_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no model")

    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as denied:
        denied.setattr(os, "open", refuse)
        with pytest.raises(VocableError, match="Permission denied"):
            find_model(str(path), [])
    with pytest.raises(VocableError, match="neither safetensors nor"):
        find_model(str(path), [])


def test_what_is_wrong_with_a_file_is_told_often_without_growing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no model")
    depths = []
    for _ in range(3):
        with pytest.raises(VocableError) as caught:
            find_model(str(path), [])
        depths.append(len(list(traceback.walk_tb(caught.value.__traceback__))))
    assert len(set(depths)) == 1
