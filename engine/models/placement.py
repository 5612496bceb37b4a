"""Where a model runs and in which number format. Called by the worker before it loads a model."""

from __future__ import annotations

import torch

from engine.errors import VocableError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(wanted: str = "auto") -> torch.device:
    """Choose `cpu`, `cuda` or `cuda:N`; `auto` takes the first CUDA device when there is one.

    Raises:
        VocableError: `device.unknown` when `wanted` names no such kind, `device.absent` when this machine lacks it.
    """
    if wanted == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise VocableError("device.unknown", f"'{wanted}' is no device.", "Use auto, cpu, cuda or cuda:N.")
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise VocableError(
            "device.absent", f"There is no device '{wanted}'; {count} CUDA devices answer.", "Use auto or cpu."
        )
    return torch.device("cuda", device.index or 0)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Choose the frozen model's number format: `auto`, `float32`, `float16` or `bfloat16`.

    `auto` is float32 on the CPU, bfloat16 where the device computes in it, else float16.
    """
    if precision in _DTYPES:
        return _DTYPES[precision]
    if precision != "auto":
        raise VocableError(
            "precision.unknown", f"'{precision}' is no number format.", f"Use auto, {', '.join(_DTYPES)}."
        )
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if major >= 8 else torch.float16


def free_memory(device: torch.device) -> int | None:
    """Bytes that new tensors can take on a CUDA device; None on the CPU, where the system decides."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + held
