"""Words made here work in diffusers, and no reader or writer of words needs torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from engine.embedding.vectors import Embedding
from engine.embedding.write import save_embedding
from engine.models.load import Model
from engine.prompt.encode import encode
from engine.prompt.layout import Lexicon, lay_out


def test_diffusers_loads_the_file_and_conditions_as_we_do(starter: Model, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(scale=0.3, size=(3, starter.entry.width)).astype(np.float32)
    save_embedding(tmp_path / "lyra.safetensors", Embedding("lyra", vectors))
    pipeline = StableDiffusionPipeline.from_pretrained(str(starter.entry.path), local_files_only=True)
    before, _ = pipeline.encode_prompt("portrait of lyra, pink background", torch.device("cpu"), 1, False)
    pipeline.load_textual_inversion(str(tmp_path / "lyra.safetensors"), token="lyra")
    after, _ = pipeline.encode_prompt("portrait of lyra, pink background", torch.device("cpu"), 1, False)
    prompt = lay_out("portrait of lyra, pink background", Lexicon(starter.tokenizer, [("lyra", 3)]))
    with torch.no_grad():
        ours = encode(starter, [prompt], {"lyra": torch.tensor(vectors)})
    torch.testing.assert_close(ours, after, rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 0.1


def test_what_the_supervisor_and_the_inspector_import_is_free_of_torch() -> None:
    modules = (
        "engine.models.catalog, engine.prompt.parse, engine.embedding.vectors, engine.embedding.read,"
        " engine.embedding.write, engine.embedding.metadata, engine.embedding.payload"
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
