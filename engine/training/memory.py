"""Out of memory as a sentence with numbers. Called where work on the device is started."""

from __future__ import annotations

import torch

from engine.errors import VocableError
from engine.models.load import Model
from engine.training.job import TrainingJob


def memory_error(error: BaseException, model: Model, job: TrainingJob) -> VocableError | None:
    """`memory.full` when `error` says that memory ran out, on the device or off it; else None."""
    if not _is_memory(error):
        return None
    recipe = job.recipe
    return VocableError(
        "memory.full",
        f"There is not enough memory on {_describe(model.device)} for {recipe.train.batch_size} pictures of"
        f" {job.width} x {job.height} in {str(model.dtype).removeprefix('torch.')}.",
        "Lower train.batch_size, or data.width and data.height; or set train.precision to a half format.",
    )


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator has no error class of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return "this machine"
    free, total = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    return f"{name} ({free / 1024**3:.1f} of {total / 1024**3:.1f} GiB free)"
