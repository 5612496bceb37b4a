"""One update of what is trained: conditioning, U-Net, loss, AdamW; and the tensors that it changes.

Called by the training loop and the benchmark. Only the trained values and what belongs to them live here; the model is
frozen. Nothing in `train_step` waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.amp import GradScaler
from torch.nn import functional

from engine.errors import VocableError
from engine.models.load import Model
from engine.models.predict import predict
from engine.prompt.encode import encode_prompts
from engine.training.batches import Batch

_HALF_SCALE = 2.0**12
"""First loss scale in float16, where gradients of a mean over all latents would vanish; it adapts from there."""


Predict = Callable[[Model, Tensor, Batch], AbstractContextManager[list[Tensor]]]
"""From the model, the trained values and a batch to what the U-Net predicts, [B, C, h, w]; and perhaps a single number
to be told with the loss. The context lasts until the gradients are there: the backward pass may compute the U-Net
again, and must find it as it was."""


@dataclass
class Learner:
    """What is trained and everything an update changes, all on the model's device."""

    values: Tensor
    """Float32 leaf of any shape."""
    predict: Predict
    optimizer: torch.optim.AdamW
    scaler: GradScaler
    """Leaves out updates with gradients that are not finite, on the device; scales the loss in float16."""


def predict_with_word(name: str) -> Predict:
    """How to predict with a word whose vectors [V, D] are the trained values."""

    @contextmanager
    def predict_batch(model: Model, values: Tensor, batch: Batch) -> Iterator[list[Tensor]]:
        conditioning = encode_prompts(model, batch.prompts, {name: values})
        yield [predict(model, batch.noisy, batch.timesteps, conditioning, batch.framing)]

    return predict_batch


def create_learner(model: Model, values: NDArray[np.float32], how: Predict, *, weight_decay: float) -> Learner:
    """Make a learner that has done no update yet."""
    leaf = torch.tensor(values, dtype=torch.float32, device=model.device, requires_grad=True)
    optimizer = torch.optim.AdamW([leaf], lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay, fused=True)
    optimizer.state[leaf] = {
        "step": torch.zeros((), dtype=torch.float32, device=model.device),
        "exp_avg": torch.zeros_like(leaf, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(leaf, requires_grad=False),
    }
    half = model.dtype == torch.float16
    scaler = GradScaler(
        model.device.type, init_scale=_HALF_SCALE if half else 1.0, growth_interval=1000 if half else 2**31 - 1
    )
    return Learner(leaf, how, optimizer, scaler)


def train_step(model: Model, learner: Learner, batch: Batch, learn_rate: float) -> Tensor:
    """Do one update; it is left out on the device when its loss or gradient is not finite.

    Returns:
        [2] or [3] float32 on the device: the batch's mean squared error, NaN when the update was left out; the largest
        component of the gradient (in the loss scale's unit; of use only to tell whether it is zero); and what else
        `learner.predict` tells.
    """
    for group in learner.optimizer.param_groups:
        group["lr"] = learn_rate
    with learner.predict(model, learner.values, batch) as (predicted, *told):
        loss = functional.mse_loss(predicted.float(), batch.target)
        learner.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    gradient = learner.values.grad
    assert gradient is not None
    gradient.add_(loss.detach() * 0)  # a loss that is not finite spoils the gradient, so the scaler sees it
    peak = gradient.abs().amax()
    learner.scaler.unscale_(learner.optimizer)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.optimizer.zero_grad(set_to_none=True)
    return torch.stack([torch.where(peak.isfinite(), loss.detach(), torch.nan), peak, *told])


def export_tensors(learner: Learner) -> dict[str, Tensor]:
    """Copies on the CPU of all that the next update depends on. Waits for the device."""
    state = learner.optimizer.state[learner.values]
    scaler = learner.scaler.state_dict()
    return {
        "values": learner.values.detach().cpu().clone(),
        "exp_avg": state["exp_avg"].cpu().clone(),
        "exp_avg_sq": state["exp_avg_sq"].cpu().clone(),
        "updates": state["step"].cpu().clone(),
        "loss_scale": torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64),
    }


def import_tensors(learner: Learner, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `export_tensors` took. Raises VocableError `resume.impossible` when it is of another shape."""
    if tensors["values"].shape != learner.values.shape:
        found, wanted = (" x ".join(map(str, tensor.shape)) for tensor in (tensors["values"], learner.values))
        raise VocableError(
            "resume.impossible",
            f"The checkpoint holds {found} numbers, but this recipe and model train {wanted}.",
            "Start a new run.",
        )
    state = learner.optimizer.state[learner.values]
    with torch.no_grad():
        learner.values.copy_(tensors["values"])
        for key, name in (("exp_avg", "exp_avg"), ("exp_avg_sq", "exp_avg_sq"), ("step", "updates")):
            state[key].copy_(tensors[name])
    scale, growth = tensors["loss_scale"].tolist()
    learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": scale, "_growth_tracker": int(growth)})
