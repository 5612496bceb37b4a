"""What an exception in the worker means for a run, a job and the process. Called by the desk only; imports torch."""

from __future__ import annotations

import re
import sys
import traceback

import torch

from daemon.worker.crashes import DeviceLost
from engine.errors import VocableError

_DEVICE = re.compile(
    r"CUDA error|CUDA driver error|cuDNN error|CUBLAS_STATUS|CUFFT|NCCL error|HIP error", re.IGNORECASE
)
_MEMORY = re.compile(r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)


def explain(error: Exception) -> VocableError:
    """Make a sentence of whatever a run or job ended with; what nobody foresaw goes to the log with its traceback.

    Raises:
        DeviceLost: for an error of the device other than want of memory, after which nothing works in this process.
    """
    if isinstance(error, VocableError):
        return error
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _MEMORY.search(text)
    ):
        return VocableError(
            "memory.full",
            f"There is not enough memory for this ({_first_line(text) or 'no details known'}).",
            "Ask for smaller or fewer pictures, or free memory and try again.",
        )
    if isinstance(error, torch.AcceleratorError) or (isinstance(error, RuntimeError) and _DEVICE.search(text)):
        raise DeviceLost(_first_line(text)) from error
    traceback.print_exception(error)
    sys.stderr.flush()
    return VocableError(
        "worker.error",
        f"Something unforeseen happened: {type(error).__name__}: {_first_line(text)}",
        "The details are in state/worker.log in the workspace; please report them.",
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
