"""What a training step costs beside the bare arithmetic that it cannot do without.

Run by people and `make benchmark`: prints the medians of the loop's own step (batch preparation, conditioning, U-Net,
loss, optimizer, reading of losses) and of a bare forward and backward of text encoder and U-Net on the same batches,
measured in turns, so that other load on the machine meets both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from engine.dataset.latents import LatentCache
from engine.embedding.create import create_embedding
from engine.models.catalog import find_model
from engine.models.load import Model, load_model
from engine.models.placement import choose_device, choose_dtype
from engine.models.starter.sample import INIT_WORD, TRAIN_DIR
from engine.prompt.encode import encode
from engine.prompt.layout import Lexicon
from engine.training.batches import BatchMaker, prefetch
from engine.training.epochs import Sample, make_epochs
from engine.training.report import Readings
from engine.training.step import create_learner, predict_with_word, train_step

VECTORS = 4
"""Vectors of the word."""
READ_EVERY = 4
"""Steps between readings of the losses here; the loop reads every quarter of a second."""


def main() -> None:
    options = _parse_options()
    device = choose_device(options.device)
    model = load_model(
        find_model(options.model, [Path("models")]), device=device, dtype=choose_dtype(options.precision, device)
    )
    size = options.size or model.entry.size
    with tempfile.TemporaryDirectory() as cache:
        maker = _make_batches(model, Path(cache), size, options.batch_size)
    ours, bare = measure(model, maker, steps=options.steps, block=options.block)
    report = {
        "model": model.entry.name,
        "device": str(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "batch_size": options.batch_size,
        "size": size,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "steps": options.steps,
        "step_ms": round(1000 * statistics.median(ours), 2),
        "bare_ms": round(1000 * statistics.median(bare), 2),
        "ratio": round(statistics.median(ours) / statistics.median(bare), 3),
    }
    print(json.dumps(report) if options.json else "\n".join(f"{name:10} {value}" for name, value in report.items()))


def measure(model: Model, maker: BatchMaker, *, steps: int, block: int) -> tuple[list[float], list[float]]:
    """Seconds a step of ours and of the bare arithmetic, in blocks by turns; the first block of each warms up."""
    step = _ours(model, maker, (steps + 2) * block)
    bare = _bare(model, maker)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(steps // block + 1):
        for place, act in enumerate((step, bare)):
            seconds = _time_block(model, act, block)
            if turn:
                times[place].append(seconds)
    return times


def _time_block(model: Model, act: Callable[[], Any], block: int) -> float:
    """Mean seconds of one call; the device is waited for only at the ends of the block, as in the loop."""
    _wait(model)
    begin = time.perf_counter()
    for _ in range(block):
        act()
    _wait(model)
    return (time.perf_counter() - begin) / block


def _ours(model: Model, maker: BatchMaker, stop: int) -> Callable[[], None]:
    """The training step as the loop does it, with batches made ahead by the loop's own thread."""
    start = create_embedding(model, name=maker.word, init_text=INIT_WORD, vectors=VECTORS)
    learner = create_learner(model, start.vectors, predict_with_word(maker.word), weight_decay=0.0)
    ahead, readings, done = prefetch(maker.make, 0, stop), Readings(model.device), iter(range(1, stop + 1))

    def act() -> None:
        step = next(done)
        readings.push(step, 0.005, train_step(model, learner, next(ahead), 0.005))
        if step % READ_EVERY == 0:
            readings.collect(wait=False)

    return act


def _bare(model: Model, maker: BatchMaker) -> Callable[[], None]:
    """Forward and backward of text encoder and U-Net down to the vectors, on a batch that lies ready."""
    start = create_embedding(model, name=maker.word, init_text=INIT_WORD, vectors=VECTORS)
    vectors = torch.tensor(start.vectors, device=model.device, requires_grad=True)
    batch = maker.make(0)

    def act() -> None:
        conditioning = encode(model, batch.prompts, {maker.word: vectors})
        predicted = model.unet(batch.noisy, batch.timesteps, encoder_hidden_states=conditioning).sample
        loss = functional.mse_loss(predicted.float(), batch.target)
        torch.autograd.grad(loss, vectors)

    return act


def _make_batches(model: Model, cache: Path, size: int, batch_size: int) -> BatchMaker:
    latents = LatentCache(cache, model, width=size, height=size, on_write_error=print)
    pictures = sorted(TRAIN_DIR.glob("*.png"))
    samples = tuple(Sample(path.name, "smiling", latents.encode(path).latents) for path in pictures)
    return BatchMaker(
        model=model,
        word="mia",
        lexicon=Lexicon(model.tokenizer, [("mia", VECTORS)]),
        epochs=make_epochs(samples, batch_size=batch_size, seed=0),
        lines=("portrait of [name], [filewords]",),
    )


def _wait(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="starter", help="name, path or hash of a base model (default: starter)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--precision", default="auto", help="auto, float32, float16 or bfloat16 (default: auto)")
    parser.add_argument("--batch-size", type=int, default=4, help="pictures in a step (default: 4)")
    parser.add_argument("--size", type=int, help="edge in pixels (default: the model's own)")
    parser.add_argument("--steps", type=int, default=120, help="steps of each kind that are measured (default: 120)")
    parser.add_argument("--block", type=int, default=2, help="steps before the turn changes (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not 1 <= options.block <= options.steps:
        parser.error("--block must be at least 1 and at most --steps")
    return options


if __name__ == "__main__":
    main()
