"""Files that cannot be used, or were made to do harm: each is refused with a code and a reason, in little room."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import VocableError
from engine.hypernetwork.optimizer_file import describe_optimizer
from engine.hypernetwork.read import read_hypernetwork
from engine.hypernetwork.write import encode_safetensors, encode_webui
from tests.engine.hypernetwork.networks import make_file, save_as, webui_values


def values(**fields: Any) -> dict[Any, Any]:
    return webui_values(make_file((8,)), **fields)


def with_tensor(name: str, tensor: Any) -> dict[Any, Any]:
    found = values()
    found[8][0][name] = tensor
    return found


def shared(layers: int, width: int) -> dict[Any, Any]:
    """Many layers that are all the same few numbers."""
    weight, bias = torch.zeros(width, width), torch.zeros(width)
    parts = {"weight": weight, "bias": bias}
    state = {f"linear.{layer}.{name}": tensor for layer in range(layers) for name, tensor in parts.items()}
    ends = {"layer_structure": [1] * (layers + 1), "dropout_structure": [0] * (layers + 1), "activation_func": None}
    return {width: (state, state), **ends}


def tiny(**description: Any) -> bytes:
    header = {"8.k.linear.0.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **description}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * 4


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "unreadable", "0 bytes"),
    "text": (b"not a file of the kind", "unsupported", "no kind"),
    "word": (save_as({"string_to_param": {"*": torch.zeros(1, 8)}}, zipped=True), "unsupported", "no hypernetwork"),
    "list": (save_as([1, 2], zipped=False), "unsupported", "no hypernetwork"),
    "cut": (encode_webui(make_file((8,)))[:-3], "unreadable", "cut short"),
    "cut safetensors": (encode_safetensors(make_file((8,)))[:-4], "unreadable", "end at byte"),
    "safetensors of nothing": (tiny(), "shape", "where its structure has"),
    "activation": (save_as(values(activation_func="zap"), zipped=True), "unsupported", "'zap'"),
    "activation of another kind": (save_as(values(activation_func=["relu"]), zipped=True), "unsupported", "not known"),
    "softmax": (save_as(values(activation_func="softmax"), zipped=True), "unsupported", "neighbours"),
    "structure": (save_as(values(layer_structure=[1, 3, 1]), zipped=True), "shape", "24 x 8"),
    "structure that is text": (save_as(values(layer_structure="1, 2, 1"), zipped=True), "shape", "no list"),
    "structure without end": (save_as(values(layer_structure=[1.0] * 65), zipped=True), "shape", "65 numbers"),
    "structure of infinity": (save_as(values(layer_structure=[1, float("inf"), 1]), zipped=True), "shape", "no use"),
    "structure of nothing": (save_as(values(layer_structure=[1, 0.01, 1]), zipped=True), "shape", "empty"),
    "structure of 2": (save_as(values(layer_structure=[2, 1]), zipped=True), "shape", "begin and end"),
    "dropout": (save_as(values(dropout_structure=[0, 0]), zipped=True), "shape", "dropout structure"),
    "dropout of all": (save_as(values(dropout_structure=[0, 1, 0]), zipped=True), "shape", "dropout structure"),
    "layer norm missing": (save_as(values(is_layer_norm=True), zipped=True), "shape", "8 x 16"),
    "a tensor too many": (save_as(with_tensor("linear.9.weight", torch.zeros(3)), zipped=True), "shape", "linear.9"),
    "no tensor": (save_as(with_tensor("linear.0.weight", 3), zipped=True), "unsupported", "something else"),
    "NaN": (save_as(with_tensor("linear.0.bias", torch.full((16,), np.nan)), zipped=True), "not_finite", "NaN"),
    "integers": (save_as(with_tensor("linear.0.bias", torch.zeros(16).long()), zipped=True), "unreadable", "I64"),
    "float64 too large": (
        save_as(with_tensor("linear.0.bias", torch.full((16,), 1e300, dtype=torch.float64)), zipped=True),
        "not_finite",
        "infinity",
    ),
    "shared": (save_as(shared(50, 256), zipped=True), "shape", "the file has"),
    "too wide": (save_as({9000: ({}, {}), "layer_structure": [1, 1]}, zipped=True), "shape", "odd ones"),
    "too many widths": (save_as({n: ({}, {}) for n in range(1, 30)}, zipped=True), "shape", "29 widths"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_each_is_refused_with_its_reason(case: str) -> None:
    data, code, reason = REFUSED[case]
    tracemalloc.start()
    with pytest.raises(VocableError, match=reason) as caught:
        read_hypernetwork(data, "ink")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == f"hypernetwork.{code}"
    assert "embedding" not in str(caught.value)
    assert peak < 64 << 20


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch canary-of-hypernetworks",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = save_as(values(optional_info=Evil()), zipped=zipped)
    with pytest.raises(VocableError, match="system") as caught:
        read_hypernetwork(data, "ink")
    assert caught.value.code == "hypernetwork.unreadable"
    assert not list(tmp_path.iterdir())


def test_a_name_of_nothing_is_refused() -> None:
    with pytest.raises(VocableError) as caught:
        read_hypernetwork(encode_webui(make_file((8,))), "///")
    assert caught.value.code == "hypernetwork.name"


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    network = make_file((4,), sizes=(1.0, 1.0))
    whole = data.draw(
        st.sampled_from(
            [encode_safetensors(network), encode_webui(network), save_as(webui_values(network), zipped=True)]
        )
    )
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_hypernetwork(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]), "ink")
        code = "hypernetwork.none"
    except VocableError as error:
        code = error.code
    assert code.startswith("hypernetwork.")


def optimizer(**fields: Any) -> dict[str, Any]:
    parameters = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(4))]
    made = torch.optim.AdamW(parameters, lr=1e-5)
    sum(parameter.square().sum() for parameter in parameters).backward()  # type: ignore[union-attr]
    made.step()
    return {"hash": "0a1b2c3d4e", "optimizer_state_dict": made.state_dict(), **fields}


@pytest.mark.parametrize("zipped", [True, False])
def test_the_optimizer_beside_a_hypernetwork_is_described(zipped: bool) -> None:
    facts = describe_optimizer(save_as(optimizer(optimizer_name="AdamW"), zipped=zipped))
    assert facts == {
        "kind": "optimizer",
        "of": "hypernetwork",
        "optimizer": "AdamW",
        "hash": "0a1b2c3d4e",
        "step": 1,
        "learn_rate": 1e-5,
        "tensors": 2,
        "numbers": 16,
    }
    assert describe_optimizer(save_as(optimizer(), zipped=zipped))["of"] == "embedding"


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(VocableError, match="no state of an optimizer") as caught:
        describe_optimizer(encode_webui(make_file((8,))))
    assert caught.value.code == "hypernetwork.unsupported"
