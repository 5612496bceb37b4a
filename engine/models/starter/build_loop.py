"""The training loop that the VAE and the U-Net share: schedule, moving average, checkpoints, log.

Called by `build_vae.py` and `build_unet.py`. A step draws all its randomness from its own number, so a resumed build
goes on exactly where it stopped. On a CPU each core computes the gradient of its own share of the batch: that waits
once a step, where threads inside every operation would wait for each other hundreds of times.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.models.starter.build_recipes import Plan, Recipe

_CHECKPOINT_EVERY_S = 180.0
_REPORT_EVERY_S = 30.0

Figures = dict[str, float]


@dataclass(frozen=True)
class Job:
    """One build: what to make, where its checkpoints and log are, on which device, and when to stop early."""

    recipe: Recipe
    work: Path
    device: torch.device
    stop: Callable[[str, int], bool]
    """Called with a stage and the number of its next step; True ends the build with a checkpoint."""

    def log(self, stage: str, entry: Mapping[str, Any]) -> None:
        line = json.dumps({"stage": stage, **entry})
        with (self.work / "build.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)


@dataclass
class Trainee:
    """What one stage trains. `loss(step, share)` gives the mean loss of that share of the step's batch and figures to
    report; `check()` measures the moving average, `average`, on pictures that training never shows."""

    modules: Mapping[str, nn.Module]
    loss: Callable[[int, slice], tuple[torch.Tensor, Figures]]
    check: Callable[[], Figures]
    average: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.average:
            self.average = {
                name: {key: value.detach().clone() for key, value in module.state_dict().items()}
                for name, module in self.modules.items()
            }


def train(job: Job, stage: str, plan: Plan, trainee: Trainee) -> bool:
    """Train to the end of the plan, from the stage's checkpoint when there is one; True when the plan is fulfilled.

    Ends with the moving average in the modules.
    """
    checkpoint = job.work / f"{stage}.pt"
    parameters = [parameter for module in trainee.modules.values() for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    step, elapsed_s = _restore(trainee, optimizer, checkpoint)
    saved = reported = time.monotonic()
    reported_step, sums = step, Figures()
    with closing(_Lanes(trainee, parameters, plan.batch)) as lanes:
        while (progress := _progress(plan, step, elapsed_s)) < 1 and not job.stop(stage, step):
            began = time.monotonic()
            rate = plan.rate * min((step + 1) / plan.warmup, 1.0) * (0.01 + 0.99 * _cosine(progress))
            figures = lanes.set_gradients(step)
            _update(optimizer, parameters, rate)
            _follow(trainee, min(plan.ema, (1 + step) / (10 + step)))
            step += 1
            now = time.monotonic()
            elapsed_s += now - began
            sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
            if now - reported > _REPORT_EVERY_S:
                steps = step - reported_step
                means = {name: round(value / steps, 5) for name, value in sums.items()}
                speed = round(steps * plan.batch / (now - reported), 1)
                job.log(stage, {**_stamp(step, elapsed_s), "pictures_per_s": speed, **means})
                reported, reported_step, sums = now, step, Figures()
            if now - saved > _CHECKPOINT_EVERY_S:
                _save(trainee, optimizer, checkpoint, step, elapsed_s)
                saved = now
    _save(trainee, optimizer, checkpoint, step, elapsed_s)
    use_average(trainee)
    job.log(stage, {**_stamp(step, elapsed_s), **trainee.check()})
    return _progress(plan, step, elapsed_s) >= 1


def use_average(trainee: Trainee) -> None:
    """Put the moving average into the modules, for measuring, encoding and export."""
    for name, module in trainee.modules.items():
        module.load_state_dict(trainee.average[name])


def generator(seed: int, stage: int, step: int) -> torch.Generator:
    """The random numbers of one step of one stage, drawn on the CPU so that they are the same on every device."""
    return torch.Generator().manual_seed((seed * 1_000_003 + stage) * 10_000_019 + step)


def save_atomically(content: Any, path: Path) -> None:
    """`torch.save` so that `path` is either the old file or the whole new one."""
    unfinished = path.with_name(f".{path.name}.new")
    with unfinished.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


class _Lanes:
    """One thread for each CPU core (one in all on a GPU), each with an equal share of every batch."""

    def __init__(self, trainee: Trainee, parameters: list[nn.Parameter], batch: int) -> None:
        self._trainee, self._parameters = trainee, parameters
        self._threads = torch.get_num_threads()
        count = self._threads if parameters[0].device.type == "cpu" else 1
        bounds = [batch * lane // count for lane in range(count + 1)]
        self._shares = [slice(*pair) for pair in pairwise(bounds) if pair[0] < pair[1]]
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(len(self._shares), initializer=torch.set_num_threads, initargs=(1,))

    def set_gradients(self, step: int) -> Figures:
        """Leave the batch's gradient in every parameter; return the means of the figures. Sums in a fixed order."""
        results = list(self._pool.map(lambda share: self._gradients(step, share), self._shares))
        batch = self._shares[-1].stop
        weights = [(share.stop - share.start) / batch for share in self._shares]
        for index, parameter in enumerate(self._parameters):
            parts = [(weight, gradients[index]) for weight, (gradients, _) in zip(weights, results, strict=True)]
            present = [weight * part for weight, part in parts if part is not None]
            parameter.grad = functools.reduce(torch.add, present) if present else None
        return {
            name: sum(weight * figures[name] for weight, (_, figures) in zip(weights, results, strict=True))
            for name in results[0][1]
        }

    def close(self) -> None:
        self._pool.shutdown()
        torch.set_num_threads(self._threads)

    def _gradients(self, step: int, share: slice) -> tuple[tuple[torch.Tensor | None, ...], Figures]:
        loss, figures = self._trainee.loss(step, share)
        return torch.autograd.grad(loss, self._parameters, allow_unused=True), figures


def _update(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _progress(plan: Plan, step: int, elapsed_s: float) -> float:
    return max(step / plan.steps, elapsed_s / 60 / plan.minutes)


def _stamp(step: int, elapsed_s: float) -> Figures:
    return {"step": step, "minutes": round(elapsed_s / 60, 2)}


def _cosine(progress: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))


@torch.no_grad()
def _follow(trainee: Trainee, decay: float) -> None:
    for name, module in trainee.modules.items():
        average = trainee.average[name]
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - decay)
            else:
                average[key].copy_(value)


def _save(trainee: Trainee, optimizer: torch.optim.Optimizer, path: Path, step: int, elapsed_s: float) -> None:
    save_atomically(
        {
            "step": step,
            "elapsed_s": elapsed_s,
            "modules": {name: module.state_dict() for name, module in trainee.modules.items()},
            "average": trainee.average,
            "optimizer": optimizer.state_dict(),
        },
        path,
    )


def _restore(trainee: Trainee, optimizer: torch.optim.Optimizer, path: Path) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in trainee.modules.items():
        module.load_state_dict(saved["modules"][name])
        for key, value in saved["average"][name].items():
            trainee.average[name][key].copy_(value)
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"]), float(saved["elapsed_s"])
