from __future__ import annotations

import pytest
import torch

from daemon.worker.faults import DeviceLost, explain
from engine.errors import VocableError


def test_a_sentence_that_is_one_already_is_passed_on() -> None:
    error = VocableError("dataset.empty", "No pictures.")
    assert explain(error) is error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_want_of_memory_is_called_that(error: Exception) -> None:
    assert explain(error).code == "memory.full"


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered\nmore"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: unspecified launch failure"),
    ],
)
def test_a_device_that_is_lost_needs_another_process(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceLost, match="device error: "):
        explain(error)
    assert "Error" in capsys.readouterr().err


def test_what_nobody_foresaw_is_reported_with_its_traceback_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        {}["missing"]
    except KeyError as error:
        shown = explain(error)
    assert shown.code == "worker.error"
    assert "KeyError: 'missing'" in shown.title
    assert "worker.log" in shown.hint
    assert "Traceback" in capsys.readouterr().err
