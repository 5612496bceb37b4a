"""The `.pt` file: torch and the guards of other programs take it, and it holds the fields that webui writes."""

from __future__ import annotations

import io
import pickletools
from typing import Any

import numpy as np
import pytest
import torch

from engine.embedding.vectors import Embedding
from engine.embedding.webui import encode_webui
from engine.errors import VocableError

WEBUI_ALLOWS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "FloatStorage"),
}
"""Those classes of webui's list that a file of float32 tensors may have use for."""


def word(**values: Any) -> Embedding:
    vectors = np.random.default_rng(3).normal(size=(4, 768)).astype(np.float32)
    return Embedding(
        **{"name": "lyra", "vectors": vectors, "step": 120, "model": "v1-5", "model_hash": "0a1b2c3d4e"} | values
    )


def pair() -> Embedding:
    return word(vectors=np.random.default_rng(3).normal(size=(4, 2048)).astype(np.float32), split=768)


def load(data: bytes, **options: Any) -> Any:
    return torch.load(io.BytesIO(data), **{"weights_only": True, "map_location": "cpu", **options})


def test_torch_reads_webuis_fields_in_webuis_order() -> None:
    values = load(encode_webui(word()))
    tensor = values["string_to_param"].pop("*")
    assert list(values.items()) == [
        ("string_to_token", {"*": 265}),
        ("string_to_param", {}),
        ("name", "lyra"),
        ("step", 120),
        ("sd_checkpoint", "0a1b2c3d4e"),
        ("sd_checkpoint_name", "v1-5"),
    ]
    assert type(values["step"]) is type(values["string_to_token"]["*"]) is int
    assert (tensor.dtype, tensor.device.type, tensor.is_contiguous()) == (torch.float32, "cpu", True)
    assert tensor.numpy().tobytes() == word().vectors.tobytes()


def test_an_unknown_base_model_is_none() -> None:
    values = load(encode_webui(word(model="", model_hash="")))
    assert values["sd_checkpoint"] is values["sd_checkpoint_name"] is None


def test_a_word_for_two_encoders_is_its_two_tensors_alone() -> None:
    values = load(encode_webui(pair()))
    assert list(values) == ["clip_l", "clip_g"]
    for key, rows in pair().encoders().items():
        assert values[key].numpy().tobytes() == rows.tobytes()
        assert values[key].shape == rows.shape


@pytest.mark.parametrize("step", [0, 127, 128, 65535, 2**31 - 1, 2**31, 2**32, 10**15])
@pytest.mark.parametrize("name", ["a", "müller 漢字 \U0001f600", "x" * 64])
def test_steps_and_names_of_any_size_are_kept(step: int, name: str) -> None:
    values = load(encode_webui(word(step=step, name=name)))
    assert (values["step"], values["name"]) == (step, name)


def test_a_file_with_a_cut_model_name_of_another_program_can_still_be_written() -> None:
    assert load(encode_webui(word(model="half a pair \ud83d")))["sd_checkpoint_name"] == "half a pair ?"


@pytest.mark.parametrize("embedding", [word(), pair()])
def test_the_five_pickles_name_only_what_webui_lets_pass(embedding: Embedding) -> None:
    file = io.BytesIO(encode_webui(embedding))
    found = set()
    for _ in range(5):
        for code, argument, _ in pickletools.genops(file):
            assert code.name not in {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "BUILD"}
            if code.name == "GLOBAL":
                found.add(tuple(argument.split(" ")))
    assert found == WEBUI_ALLOWS - {("torch._utils", "_rebuild_parameter")}
    tensors = list(embedding.encoders().values())
    assert len(file.read()) == sum(8 + rows.nbytes for rows in tensors)


def test_the_pickles_equal_those_of_torch_but_for_their_memo() -> None:
    vectors = torch.from_numpy(word().vectors)
    theirs, ours = io.BytesIO(), io.BytesIO(encode_webui(word()))
    values = load(encode_webui(word()))
    values["string_to_param"]["*"] = vectors
    torch.save(values, theirs, _use_new_zipfile_serialization=False)
    theirs.seek(0)
    for _ in range(5):
        assert plain(theirs) == plain(ours)
    assert theirs.read() == ours.read()


def plain(file: io.BytesIO) -> list[Any]:
    """One pickle's arguments: without the memo, without the address by which torch calls a storage."""
    memo: dict[int, Any] = {}
    arguments: list[Any] = []
    for code, argument, _ in pickletools.genops(file):
        if "PUT" in code.name and arguments:
            memo[argument] = arguments[-1]
        elif code.name in {"GLOBAL", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "NONE", "NEWFALSE"}:
            arguments.append("key" if str(argument).isdecimal() and code.name == "BINUNICODE" else argument)
        elif "GET" in code.name:
            arguments.append(memo[argument])
    return arguments


def test_equal_words_make_equal_files_of_the_older_kind() -> None:
    assert encode_webui(word()) == encode_webui(word())
    assert not encode_webui(word()).startswith(b"PK")


def test_a_file_on_disk_is_read_without_the_guard_too(tmp_path: Any) -> None:
    path = tmp_path / "lyra.pt"
    path.write_bytes(encode_webui(word()))
    assert load(path.read_bytes(), weights_only=False)["name"] == "lyra"
    assert torch.load(path, weights_only=True)["step"] == 120


def test_spoilt_vectors_are_not_written() -> None:
    with pytest.raises(VocableError) as caught:
        encode_webui(word(vectors=np.full((1, 768), np.inf, np.float32)))
    assert caught.value.code == "embedding.not_finite"
