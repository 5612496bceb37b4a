from __future__ import annotations

import pytest
import torch

from engine.errors import VocableError
from engine.models.placement import choose_device, choose_dtype

CPU = torch.device("cpu")


def test_auto_takes_what_the_machine_has() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize(
    ("wanted", "code"), [("gpu", "device.unknown"), ("mps", "device.unknown"), ("cuda:99", "device.absent")]
)
def test_a_device_that_cannot_be_had_is_refused(wanted: str, code: str) -> None:
    with pytest.raises(VocableError) as caught:
        choose_device(wanted)
    assert caught.value.code == code


def test_the_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert choose_dtype("auto", CPU) is torch.float32
    assert choose_dtype("bfloat16", CPU) is torch.bfloat16


def test_an_unknown_number_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(VocableError, match="bfloat16"):
        choose_dtype("int8", CPU)
