"""Files of hypernetworks: every form that is read, both that are written, and what an independent reader finds."""

from __future__ import annotations

import io
import json
import pickletools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import VocableError
from engine.hypernetwork.convert import convert
from engine.hypernetwork.facts import describe
from engine.hypernetwork.network_file import HypernetworkFile, list_tensors
from engine.hypernetwork.read import is_hypernetwork, read_hypernetwork
from engine.hypernetwork.structure import ACTIVATIONS
from engine.hypernetwork.write import encode_safetensors, encode_webui, is_same, save_hypernetwork
from tests.engine.hypernetwork.networks import ReferenceModule, make_file, save_as, webui_values

FIELDS = [
    *("step", "name", "layer_structure", "activation_func", "is_layer_norm", "weight_initialization"),
    *("sd_checkpoint", "sd_checkpoint_name", "activate_output", "use_dropout", "dropout_structure"),
    *("last_layer_dropout", "optional_info"),
]
WEBUI_ALLOWS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch", "FloatStorage"),
}

structures = st.builds(
    lambda inner, activation, norm, output, share: make_file(
        (8, 12),
        sizes=(1.0, *inner, 1.0),
        activation=activation,
        layer_norm=norm,
        activate_output=output,
        dropout=(0.0, *(share,) * len(inner), 0.0),
    ),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 1.5]), max_size=3),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.3]),
)


def load(data: bytes) -> Any:
    """What torch makes of a file, allowing no more than a plain dictionary of tensors."""
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


@given(structures)
@settings(max_examples=40)
def test_each_way_round_between_the_formats_is_bit_exact(network: HypernetworkFile) -> None:
    ours = encode_safetensors(network)
    theirs = encode_webui(read_hypernetwork(ours, "ink"))
    back = read_hypernetwork(theirs, "ink")
    assert is_same(back, network)
    assert encode_safetensors(back) == ours
    assert encode_webui(back) == theirs


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_webui_are_read_in_both_serialisations(zipped: bool) -> None:
    network = make_file((320, 768), layer_norm=True, dropout=(0.0, 0.3, 0.0), activation="mish")
    read = read_hypernetwork(save_as(webui_values(network), zipped=zipped), "ink")
    assert is_same(read, network)
    assert (read.flavour, read.family, read.info) == ("webui-pt", "sd1", None)
    assert encode_safetensors(read) == encode_safetensors(network)


def test_half_precision_is_read_as_the_float32_it_means() -> None:
    values = webui_values(make_file((8,)))
    values[8] = tuple({name: tensor.half() for name, tensor in side.items()} for side in values[8])
    read = read_hypernetwork(save_as(values, zipped=True), "ink")
    assert np.array_equal(read.widths[8][0]["linear.0.weight"], values[8][0]["linear.0.weight"].float().numpy())


def test_the_oldest_files_name_two_layers_and_say_nothing_else() -> None:
    network = make_file((320, 640), activation="linear", activate_output=True)
    renamed = {"linear.0": "linear1", "linear.1": "linear2"}
    values = {
        width: tuple({renamed[name[:8]] + name[8:]: tensor for name, tensor in side.items()} for side in pair)
        for width, pair in webui_values(network).items()
        if isinstance(width, int)
    }
    read = read_hypernetwork(save_as({**values, "step": 7, "activation_func": None}, zipped=False), "ink")
    assert is_same(replace(read, model="v1-5", model_hash="0a1b2c3d4e"), network)
    assert (read.flavour, read.sizes, read.activation, read.weight_init) == (
        *("webui-pt-old", (1.0, 2.0, 1.0), "linear", "Normal"),
    )
    assert load(encode_webui(read))["activation_func"] == "linear"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (0.0, 0.3, 0.3, 0.0, 0.0)),
        ({"last_layer_dropout": True}, (0.0, 0.3, 0.3, 0.3, 0.0)),
        ({"use_dropout": False}, (0.0,) * 5),
    ],
)
def test_a_missing_dropout_structure_is_rebuilt(fields: dict[str, Any], expected: tuple[float, ...]) -> None:
    network = make_file((8,), sizes=(1.0, 2.0, 2.0, 2.0, 1.0), dropout=expected)
    values = webui_values(network, **{"use_dropout": True, **fields})
    del values["dropout_structure"]
    assert read_hypernetwork(save_as(values, zipped=True), "ink").dropout == expected


def test_a_missing_activate_output_means_yes() -> None:
    values = webui_values(make_file((8,), activate_output=True, activation="tanh"))
    del values["activate_output"]
    assert read_hypernetwork(save_as(values, zipped=True), "ink").activate_output


def test_our_pt_holds_the_keys_of_webui_in_its_order_and_its_module_takes_them() -> None:
    network = make_file((320, 640), layer_norm=True, activation="leakyrelu", dropout=(0.0, 0.2, 0.0))
    values = load(encode_webui(network))
    assert list(values) == [320, 640, *FIELDS]
    assert (values["layer_structure"], values["activation_func"]) == ([1.0, 2.0, 1.0], "leakyrelu")
    assert (values["use_dropout"], values["step"], values["sd_checkpoint"]) == (True, 7, "0a1b2c3d4e")
    for width in (320, 640):
        for side in (0, 1):
            ReferenceModule(width, values, values[width][side])  # a strict load: no key too many or too few
            for name, tensor in values[width][side].items():
                assert tensor.numpy().tobytes() == network.widths[width][side][name].tobytes()


def test_our_pt_names_only_classes_that_webui_allows_and_is_no_zip() -> None:
    data = encode_webui(make_file((8,)))
    named, position = set(), 0
    for _ in range(5):
        opcodes = list(pickletools.genops(data[position:]))
        named |= {tuple(str(argument).split(" ")) for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}
        position += (opcodes[-1][2] or 0) + 1
    assert named == WEBUI_ALLOWS
    assert not data.startswith(b"PK")


def test_our_safetensors_holds_webui_s_fields_as_metadata(tmp_path: Path) -> None:
    network = make_file((8,), metadata={"vocable.recipe": "kind = 'hypernetwork'"})
    path = tmp_path / "ink.safetensors"
    save_hypernetwork(path, network)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    told = header.pop("__metadata__")
    assert (told["vocable.kind"], json.loads(told["vocable.layer_structure"])) == ("hypernetwork", [1.0, 2.0, 1.0])
    assert (told["vocable.activation_func"], told["vocable.recipe"]) == ("relu", "kind = 'hypernetwork'")
    assert list(header) == [key for key, _ in list_tensors(network)]
    assert next(iter(header)) == "8.k.linear.0.weight"
    assert read_hypernetwork(data, "ink").metadata["vocable.recipe"] == "kind = 'hypernetwork'"


def test_facts_say_what_there_is() -> None:
    network = read_hypernetwork(encode_webui(make_file((8, 12), model="v1 \x1b[31m")), "ink")
    facts = describe(network)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["kind"], facts["flavour"], facts["widths"]) == ("hypernetwork", "webui-pt", [8, 12])
    assert facts["parameters"] == sum(2 * (2 * 2 * w * w + 3 * w) for w in (8, 12))
    again = read_hypernetwork(encode_safetensors(network), "other")
    assert describe(replace(again, name="ink", metadata={}))["hash12"] == facts["hash12"]


def test_conversion_says_what_is_lost_and_who_cannot_read_it() -> None:
    network = make_file((8,), activation="silu", metadata={"vocable.recipe": "text"})
    converted = convert(network, "webui-pt")
    assert [suffix for suffix, _ in converted.files] == [".pt"]
    assert any("ComfyUI" in note and "silu" in note for note in converted.notes)
    assert any("recipe" in note for note in converted.notes)
    assert convert(make_file((8,)), "webui-pt").notes == ()
    [(suffix, data)] = convert(network, "safetensors").files
    assert suffix == ".safetensors"
    assert is_same(read_hypernetwork(data, "ink"), network)


def test_a_file_that_reads_back_as_something_else_does_not_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.hypernetwork.write.read_hypernetwork", lambda data, stem: make_file((8,), seed=1))
    with pytest.raises(VocableError) as caught:
        save_hypernetwork(tmp_path / "ink.safetensors", make_file((8,)))
    assert caught.value.code == "disk.verify"
    assert not list(tmp_path.iterdir())


def test_files_are_told_apart_from_words() -> None:
    network = make_file((8,))
    assert is_hypernetwork(encode_safetensors(network))
    assert is_hypernetwork(encode_webui(network))
    assert not is_hypernetwork(save_as({"string_to_param": {"*": torch.zeros(1, 8)}}, zipped=True))
    assert not is_hypernetwork(b"nothing of the kind")
