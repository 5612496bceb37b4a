"""Words made here work in diffusers, and no reader or writer of words needs torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from engine.embedding.convert import Format, convert
from engine.embedding.vectors import Embedding
from engine.models.load import Model
from engine.prompt.encode import encode
from engine.prompt.layout import Lexicon, lay_out

PROMPT = "portrait of lyra, pink background"


@pytest.fixture
def pipeline(starter: Model) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(str(starter.entry.path), local_files_only=True)


@pytest.fixture
def word(starter: Model) -> Embedding:
    vectors = np.random.default_rng(0).normal(scale=0.3, size=(3, starter.entry.width)).astype(np.float32)
    return Embedding("lyra", vectors, step=7)


def condition(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    conditioning, _ = pipeline.encode_prompt(PROMPT, torch.device("cpu"), 1, False)
    return conditioning


@pytest.mark.parametrize("format", ["safetensors", "webui-pt", "diffusers", "onetrainer"])
def test_diffusers_loads_the_file_and_conditions_as_we_do(
    starter: Model, pipeline: StableDiffusionPipeline, word: Embedding, format: Format, tmp_path: Path
) -> None:
    ((suffix, data),) = convert(word, format).files
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    before = condition(pipeline)
    pipeline.load_textual_inversion(str(path), token=None if format in ("diffusers", "webui-pt") else "lyra")
    after = condition(pipeline)
    prompt = lay_out(PROMPT, Lexicon(starter.tokenizer, [("lyra", 3)]))
    with torch.no_grad():
        ours = encode(starter, [prompt], {"lyra": torch.tensor(word.vectors)})
    torch.testing.assert_close(ours, after, rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 0.1


@pytest.mark.parametrize(("number", "key"), enumerate(["clip_l", "clip_g"]))
def test_diffusers_loads_each_half_into_its_own_encoder(
    pipeline: StableDiffusionPipeline, word: Embedding, number: int, key: str, tmp_path: Path
) -> None:
    pair = replace(word, vectors=np.concatenate([word.vectors, -word.vectors], axis=1), split=word.vectors.shape[1])
    suffix, data = convert(pair, "diffusers").files[number]
    path = tmp_path / f"learned_embeds{suffix}"
    path.write_bytes(data)
    encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    pipeline.load_textual_inversion(str(path), text_encoder=encoder, tokenizer=tokenizer)
    ids = tokenizer.convert_tokens_to_ids(["lyra", "lyra_1", "lyra_2"])
    loaded = encoder.get_input_embeddings().weight[ids].detach().numpy()
    assert loaded.tobytes() == pair.encoders()[key].tobytes()


@pytest.mark.parametrize("format", ["safetensors", "diffusers", "onetrainer"])
@pytest.mark.parametrize("split", [0, 50])
def test_the_safetensors_library_for_torch_reads_the_numbers(word: Embedding, format: Format, split: int) -> None:
    given = replace(word, split=split)
    found = [rows for _, data in convert(given, format).files for rows in safetensors.torch.load(data).values()]
    expected = sorted(rows.tobytes() for rows in given.encoders().values())
    assert sorted(rows.numpy().tobytes() for rows in found) == expected


def test_what_the_supervisor_and_the_inspector_import_is_free_of_torch() -> None:
    modules = (
        "engine.models.catalog, engine.prompt.parse, engine.embedding.vectors, engine.embedding.read,"
        " engine.embedding.write, engine.embedding.metadata, engine.embedding.payload, engine.embedding.convert"
    )
    heavy = "{'torch', 'diffusers', 'transformers', 'accelerate'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print({heavy})"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.strip() == "set()"
