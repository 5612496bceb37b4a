"""What a machine adds to the numbers of a run: another device, driver or thread count rounds otherwise.

Called when a run begins or goes on; checkpoints keep it, so that a run that goes on elsewhere can say what changed.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from engine.models.load import Model

_LIBRARIES = ("torch", "diffusers", "transformers", "tokenizers")
_DRIVER = Path("/proc/driver/nvidia/version")


def describe_machine(model: Model) -> dict[str, Any]:
    """Device, number format and whatever of driver, processor and threads decides how it rounds."""
    dtype = str(model.dtype).removeprefix("torch.")
    if model.device.type != "cuda":
        capability = torch.backends.cpu.get_cpu_capability()
        return {"device": model.device.type, "dtype": dtype, "cpu": capability, "threads": torch.get_num_threads()}
    return {
        "device": torch.cuda.get_device_name(model.device),
        "dtype": dtype,
        "driver": read_driver(_DRIVER),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def describe_libraries() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES}


def read_driver(path: Path) -> str:
    """Version of NVIDIA's kernel module from its file below /proc; empty when that does not say."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", path.read_text())
    except OSError:
        return ""
    return found[1] if found else ""
