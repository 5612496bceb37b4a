"""Single files: pickled ones, hostile ones, what tells the prediction, other tasks, hashes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import VocableError
from engine.models import hashes
from engine.models.catalog import ModelEntry, find_model, list_models, read_entry
from engine.models.load import Model, load_model, probe_prediction
from tests.engine.models.families import Built, Tensors, build
from tests.engine.models.test_families import picture

Get = Callable[[str], Built]
CPU = torch.device("cpu")


def load(path: Path) -> Model:
    return load_model(read_entry(path), device=CPU, dtype=torch.float32)


def refused(path: Path) -> str:
    with pytest.raises(VocableError) as caught:
        read_entry(path)
    assert caught.value.code == "model.unreadable"
    assert str(path) in caught.value.title
    return caught.value.title


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_checkpoint_holds_what_its_safetensors_twin_does(built: Get, tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.ckpt"
    saved = {"state_dict": built("sd1").tensors, "global_step": 1000, "callbacks": {}}
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    model, twin = load(path), load(built("sd1").file)
    for one, other in ((model.unet, twin.unet), (model.vae, twin.vae), (model.text_encoder, twin.text_encoder)):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_what_a_trainers_callbacks_knew_is_read_past(built: Get, tmp_path: Path) -> None:
    """The first checkpoints of SD 1.x have a class of PyTorch Lightning as a key of a dictionary."""
    path, marked = tmp_path / "plain.ckpt", tmp_path / "marked.ckpt"
    torch.save({"callbacks": {"KEY": {"best": 0.5}}, "state_dict": built("sd1").tensors}, path)
    named = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    replace_pickle(path, marked, lambda data: data.replace(b"X\x03\x00\x00\x00KEY", named))
    assert read_entry(marked).family == "sd1"


def replace_pickle(source: Path, target: Path, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            new.writestr(member.filename, change(data) if member.filename.endswith("data.pkl") else data)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/vocable-was-here",)


def test_a_checkpoint_that_wants_to_run_something_is_refused_unrun(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"model.diffusion_model.out.2.bias": Bomb()}}, path)
    assert "posix.system" in refused(path)
    path.write_bytes(pickle.dumps(Bomb()))
    assert "posix.system, which no checkpoint needs" in refused(path)
    assert not Path("/tmp/vocable-was-here").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", b"\x80\x02", b"\xff" * 100, b"<html>", (1 << 62).to_bytes(8, "little") + b"{"]
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_nonsense_is_refused_in_a_sentence(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert refused(path).endswith(".")


def test_a_file_that_is_cut_short_is_refused(built: Get, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(built("sd1").file.read_bytes()[:-1])
    assert "tensors end at byte" in refused(path)


def test_a_damaged_member_of_an_archive_is_noticed_when_it_is_read(built: Get, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(built("sd1").tensors, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VocableError, match="checksum") as caught:
        load(path)
    assert caught.value.code == "model.unreadable"


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    assert "not an ordinary file" in refused(tmp_path / "model.safetensors")


def write(path: Path, tensors: Tensors, **metadata: str) -> Path:
    save_file(tensors, path, metadata or None)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.diffusion_model.joint_blocks.0.x", "SD 3"),
        ("model.diffusion_model.double_blocks.0.x", "FLUX"),
        ("conditioner.embedders.0.model.ln_final.weight", "refiner"),
        ("lora_unet_down.lora_up.weight", "LoRA"),
        ("edm_mean", "noise of EDM"),
        ("edm_vpred.sigma_max", "noise of EDM"),
        ("model.diffusion_model.out.2.bias", "no text encoder"),
        ("anything", "no model that is known"),
    ],
)
def test_other_files_are_refused_by_what_they_are(name: str, reason: str, tmp_path: Path) -> None:
    assert reason in refused(write(tmp_path / "other.safetensors", {name: torch.zeros(4)}))


def test_a_checkpoint_without_its_vae_or_a_tensor_is_refused_by_name(built: Get, tmp_path: Path) -> None:
    tensors = built("sd1").tensors
    without = {key: value for key, value in tensors.items() if not key.startswith("first_stage_model.")}
    assert "no VAE" in refused(write(tmp_path / "a.safetensors", without))
    lacking = {key: value for key, value in tensors.items() if not key.endswith("time_embed.2.bias")}
    with pytest.raises(VocableError, match=r"time_embedding.linear_2.bias") as caught:
        load(write(tmp_path / "b.safetensors", lacking))
    assert caught.value.code == "model.unreadable"


def test_a_file_with_more_blocks_than_any_model_is_refused_at_once(built: Get, tmp_path: Path) -> None:
    """Each block is looked for among all names, which would take a file of the largest header minutes."""
    blocks = {f"model.diffusion_model.input_blocks.{n}.0.in_layers.2.weight": torch.zeros(1) for n in range(100)}
    path = write(tmp_path / "many.safetensors", blocks | built("sd1").tensors)
    assert "more than any known model" in refused(path)


def test_a_vae_that_does_not_fit_its_unet_is_refused(built: Get, tmp_path: Path) -> None:
    other = {"first_stage_model.decoder.conv_in.weight": torch.zeros(8, 16, 3, 3)}
    path = write(tmp_path / "mixed.safetensors", built("sd1").tensors | other)
    assert "its VAE has 16 channels but its U-Net 4" in refused(path)


def test_models_for_other_tasks_are_refused_and_inpainting_works(tmp_path: Path) -> None:
    assert "depth" in refused(build("sd1", tmp_path / "five", channels=5).file)
    made = build("sd1", tmp_path / "nine", channels=9)
    folder, file = load(made.folder), load(made.file)
    assert folder.entry.inpainting
    assert file.entry.inpainting
    assert picture(folder, "a hat") == picture(file, "a hat")


def prediction(path: Path) -> str:
    return read_entry(path).prediction_type


def test_the_prediction_is_told_by_the_sidecar_then_by_marks_then_by_the_header(built: Get, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert prediction(write(path, built("sdxl").tensors)) == "epsilon"
    assert prediction(write(path, built("sdxl").tensors, **{"modelspec.prediction_type": "v"})) == "v_prediction"
    marks = {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}
    assert prediction(write(path, built("sdxl").tensors | marks)) == "v_prediction"
    assert load(path).alphas_cumprod[-1] == 0
    path.with_suffix(".yaml").write_text("    parameterization: eps # really\n")
    assert prediction(path) == "epsilon"


def test_published_models_of_sd2_are_known_by_their_steps_and_others_ask_the_unet(built: Get, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    for steps, wanted, size in ((110000, "v_prediction", 768), (875000, "epsilon", 512), (5, "", 512)):
        torch.save({"state_dict": built("sd2").tensors, "global_step": steps}, path)
        entry = read_entry(path)
        assert (entry.prediction_type, entry.size) == (wanted, size)
    model = load(path)
    assert model.prediction_type == model.scheduler_config["prediction_type"] == probe_prediction(model)


def test_a_unet_that_is_asked_gives_its_prediction_away(starter: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe_prediction(starter) == starter.prediction_type == "v_prediction"
    whole = starter.unet.forward
    signal = starter.alphas_cumprod[-1].sqrt()

    def as_epsilon(noisy: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        output = whole(noisy, *arguments, **options)
        output.sample = signal * output.sample + (1 - signal**2).sqrt() * noisy
        return output

    monkeypatch.setattr(starter.unet, "forward", as_epsilon)
    assert probe_prediction(starter) == "epsilon"


def test_folders_and_files_are_listed_and_found_alike(built: Get, tmp_path: Path) -> None:
    inner = tmp_path / "of somebody"
    inner.mkdir()
    write(inner / "mine.safetensors", built("sd1").tensors)
    write(tmp_path / "mine.vae.safetensors", built("sd1").tensors)
    write(tmp_path / "lora.safetensors", {"lora_up": torch.zeros(1)})
    (tmp_path / "twice").symlink_to(built("sdxl").folder)
    assert [entry.name for entry in list_models([tmp_path])] == ["starter", "twice", "mine"]
    mine = find_model("mine", [tmp_path])
    assert mine.path == inner / "mine.safetensors"
    assert find_model("of somebody/mine.safetensors", [tmp_path]) == mine
    assert find_model(mine.hash, [tmp_path]) == mine


@pytest.fixture
def large(built: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that is too large to be hashed while somebody waits."""
    monkeypatch.setattr(hashes, "SMALL_BYTES", 1000)
    monkeypatch.setattr(hashes, "_KNOWN", {})
    (tmp_path / "models").mkdir()
    return write(tmp_path / "models/large.safetensors", built("sd1").tensors)


def test_a_listing_does_not_wait_for_hashes_and_knows_those_that_were_made(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"

    def listed() -> ModelEntry:
        return next(entry for entry in list_models([large.parent], cache=cache, wait=False) if entry.name == "large")

    assert listed().hash == ""
    whole = hashlib.sha256(large.read_bytes()).hexdigest()
    assert find_model("large", [large.parent], cache=cache).hash == whole[:10]
    monkeypatch.setattr(hashes, "_KNOWN", {})  # another process
    assert listed().hash == whole[:10]
    assert find_model(whole, [large.parent], cache=cache, wait=False).path == large
    os.utime(large, ns=(1, 1))
    assert listed().hash == ""


def test_a_spoilt_note_of_a_hash_is_made_anew(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    right = find_model("large", [large.parent], cache=cache).hash
    for text in ("", "{}", "[]", json.dumps({"stamp": [], "sha256": 7})):
        next(cache.rglob("*.json")).write_text(text)
        monkeypatch.setattr(hashes, "_KNOWN", {})
        assert find_model("large", [large.parent], cache=cache).hash == right
