from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import VocableError
from engine.models.catalog import ModelEntry, read_entry
from engine.models.load import Model, load_model
from engine.prompt.encode import encode
from engine.prompt.layout import Lexicon, lay_out

Copy = Callable[[str], Path]
CPU = torch.device("cpu")


def networks(model: Model) -> list[torch.nn.Module]:
    return [model.text_encoder, model.unet, model.vae]


def test_everything_is_frozen_and_in_evaluation_mode(starter: Model) -> None:
    assert not any(parameter.requires_grad for part in networks(starter) for parameter in part.parameters())
    assert not any(module.training for part in networks(starter) for module in part.modules())


def test_loading_prints_nothing(starter_entry: ModelEntry, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(starter_entry, device=CPU, dtype=torch.float32)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_the_vae_in_float32_where_it_would_overflow(
    copy_starter: Copy, dtype: torch.dtype
) -> None:
    folder = copy_starter("model")
    config = json.loads((folder / "vae/config.json").read_text())
    for upcast, wanted in ((True, torch.float32), (False, dtype)):
        (folder / "vae/config.json").write_text(json.dumps(config | {"force_upcast": upcast}))
        model = load_model(read_entry(folder), device=CPU, dtype=dtype)
        assert {part.dtype for part in (model.text_encoder, model.unet)} == {dtype}
        assert model.vae.dtype == wanted


def test_the_noise_schedule_is_that_of_the_configuration(starter: Model) -> None:
    config = starter.scheduler_config
    betas = torch.linspace(config["beta_start"], config["beta_end"], config["num_train_timesteps"])
    assert config["beta_schedule"] == "linear"
    torch.testing.assert_close(starter.alphas_cumprod, torch.cumprod(1 - betas, 0))
    assert starter.prediction_type == "v_prediction"
    assert starter.latent_factor == 4


def test_zero_terminal_signal_is_honoured(copy_starter: Copy) -> None:
    folder = copy_starter("model")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_betas_zero_snr": True}))
    assert load_model(read_entry(folder), device=CPU, dtype=torch.float32).alphas_cumprod[-1] == 0


def test_weights_that_change_under_a_loaded_model_do_no_harm(copy_starter: Copy) -> None:
    folder = copy_starter("model")
    model = load_model(read_entry(folder), device=CPU, dtype=torch.float16)
    before = [parameter.clone() for part in networks(model) for parameter in part.parameters()]
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(b"")
    after = [parameter for part in networks(model) for parameter in part.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("part", ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"])
@pytest.mark.parametrize("damage", ["truncated", "tensor missing"])
def test_damaged_weights_are_refused_by_name(copy_starter: Copy, part: str, damage: str) -> None:
    folder = copy_starter("model")
    path = folder / f"{part}.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        tensors = load_file(path)
        del tensors[max(tensors)]
        save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(VocableError, match=f"{part}.safetensors") as caught:
        load_model(read_entry(folder), device=CPU, dtype=torch.float32)
    assert caught.value.code == "model.unreadable"


def test_a_folder_of_half_precision_variants_loads(copy_starter: Copy, starter: Model) -> None:
    folder = copy_starter("model")
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    model = load_model(read_entry(folder), device=CPU, dtype=torch.float32)
    chunks = [lay_out("portrait of a girl", Lexicon(model.tokenizer, []))]
    assert torch.equal(encode(model, chunks, {}), encode(starter, chunks, {}))
