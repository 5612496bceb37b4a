"""Every layout that some program writes is read, from every container it comes in, with equal numbers."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.torch import save as save_safetensors

from engine.embedding.layouts import find_words
from engine.embedding.payload import payload_json
from engine.embedding.pixels import encode_pixels
from engine.embedding.png import SIGNATURE, encode_chunk
from engine.embedding.read import WordFile, read_embedding, read_words
from engine.embedding.stored import Storage, describe_tensor, row_major
from engine.embedding.vectors import Embedding
from engine.errors import VocableError

ROWS = torch.randn(3, 768, generator=torch.Generator().manual_seed(0))
WIDE = torch.randn(3, 1280, generator=torch.Generator().manual_seed(1))

SERIALISATIONS: dict[str, dict[str, Any]] = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy, protocol 1": {"_use_new_zipfile_serialization": False, "pickle_protocol": 1},
    "legacy, protocol 5": {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
}


def pickled(values: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(values, file, **options)
    return file.getvalue()


def webui(**changes: Any) -> dict[str, Any]:
    fields = {"name": "mira-60", "step": 60, "sd_checkpoint": "0a1b2c3d4e", "sd_checkpoint_name": "anime"}
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": ROWS}, **fields} | changes


def original() -> dict[str, Any]:
    """As the first program wrote them: the token is a tensor, the vectors are parameters of a module."""
    token = torch.tensor([[49406, 265, 49407]])[0, 1]
    parameters = torch.nn.ParameterDict({"*": torch.nn.Parameter(ROWS)})
    return {"string_to_token": {"*": token}, "string_to_param": parameters}


def safetensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The library refuses tensors that share memory."""
    return save_safetensors({key: value.clone() for key, value in tensors.items()}, metadata)


def only_word(file: WordFile) -> Embedding:
    (word,) = file.words
    return word


def assert_rows(word: Embedding, expected: torch.Tensor) -> None:
    assert word.vectors.dtype == np.float32
    assert np.array_equal(word.vectors, expected.detach().float().numpy())


PICKLED = {
    "webui": (webui(), "webui .pt", ROWS),
    "webui, a parameter": (webui(string_to_param={"*": torch.nn.Parameter(ROWS)}), "webui .pt", ROWS),
    "diffusers": ({"<mira>": ROWS}, "diffusers .bin", ROWS),
    "diffusers, one vector": ({"<mira>": ROWS[0]}, "diffusers .bin", ROWS[:1]),
    "diffusers, float16": ({"<mira>": ROWS.half()}, "diffusers .bin", ROWS.half()),
    "diffusers, bfloat16": ({"<mira>": ROWS.bfloat16()}, "diffusers .bin", ROWS.bfloat16()),
    "diffusers, float64": ({"<mira>": ROWS.double()}, "diffusers .bin", ROWS),
    "kohya": ({"emb_params": ROWS}, "emb_params .pt", ROWS),
    "list": ([{"<mira>": ROWS}, {"<mira>": ROWS[0]}], "list .pt", torch.cat([ROWS, ROWS[:1]])),
    "a part of a larger tensor": ({"x": torch.cat([WIDE[:, :768], ROWS])[3:]}, "diffusers .bin", ROWS),
    "columns first": ({"x": ROWS.T.contiguous().T}, "diffusers .bin", ROWS),
}


@pytest.mark.parametrize("serialisation", SERIALISATIONS)
@pytest.mark.parametrize("case", PICKLED)
def test_a_pickled_embedding_is_read(case: str, serialisation: str) -> None:
    values, flavour, expected = PICKLED[case]
    file = read_words(pickled(values, **SERIALISATIONS[serialisation]), "mira")
    assert file.flavour == f"{flavour} ({serialisation.partition(',')[0]})"
    assert_rows(only_word(file), expected)
    assert only_word(file).name == "mira"


@pytest.mark.parametrize("serialisation", ["zip", "legacy", "zip, protocol 4", "legacy, protocol 5"])
def test_the_first_files_with_a_parameter_dict_are_read(serialisation: str) -> None:
    file = read_words(pickled(original(), **SERIALISATIONS[serialisation]), "mira")
    assert file.flavour == f"original .pt ({serialisation.partition(',')[0]})"
    assert_rows(only_word(file), ROWS)


def test_a_webui_file_says_where_it_comes_from() -> None:
    word = only_word(read_words(pickled(webui()), "mira"))
    assert (word.name, word.trigger, word.step) == ("mira", "mira-60", 60)
    assert (word.model, word.model_hash) == ("anime", "0a1b2c3d4e")
    empty = only_word(read_words(pickled(webui(step=None, sd_checkpoint=None, sd_checkpoint_name=None)), "mira"))
    assert (empty.step, empty.model, empty.model_hash) == (0, "", "")


def test_steps_counted_by_numpy_are_read() -> None:
    for serialisation in SERIALISATIONS.values():
        assert read_embedding(pickled(webui(step=np.int64(70)), **serialisation), "mira").step == 70


def test_tensors_of_a_mac_which_are_arrays_in_the_file_are_read() -> None:
    class Mac:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_device_tensor_from_numpy, (ROWS.numpy(), torch.float32, "mps", False)

    for serialisation in ("zip", "legacy", "zip, protocol 4"):
        assert_rows(
            read_embedding(pickled(webui(string_to_param={"*": Mac()}), **SERIALISATIONS[serialisation]), "mira"), ROWS
        )


@pytest.mark.parametrize("kind", [torch.nn.Parameter, torch.Tensor.clone])
def test_tensors_with_attributes_of_their_own_are_read(kind: Any) -> None:
    vectors = kind(ROWS)
    vectors.note = "trained twice"
    for serialisation in SERIALISATIONS.values():
        assert_rows(read_embedding(pickled({"<mira>": vectors}, **serialisation), "mira"), ROWS)


def test_an_archive_that_was_stored_again_is_read() -> None:
    """As people do who strip the members of newer torch for older programs."""
    source, target = zipfile.ZipFile(io.BytesIO(pickled(webui()))), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in ("archive/data.pkl", "archive/data/0", "archive/version"):
            archive.writestr(name, source.read(name))
    assert_rows(read_embedding(target.getvalue(), "mira"), ROWS)


SAFETENSORS = {
    "emb_params": ({"emb_params": ROWS}, ROWS),
    "diffusers": ({"<mira>": ROWS}, ROWS),
    "diffusers, one vector": ({"<mira>": ROWS[0]}, ROWS[:1]),
    "OneTrainer": ({"emp_params": ROWS}, ROWS),
    "OneTrainer with output vectors": ({"emp_params": ROWS, "emp_params_out": ROWS + 1}, ROWS),
    "SDXL": ({"clip_g": WIDE, "clip_l": ROWS}, torch.cat([ROWS, WIDE], 1)),
    "SDXL with output vectors": ({"clip_g": WIDE, "clip_l": ROWS, "clip_l_out": ROWS}, torch.cat([ROWS, WIDE], 1)),
    "Stable Diffusion 3": (
        {"clip_g": WIDE, "clip_l": ROWS, "t5": torch.ones(3, 4096)},
        torch.cat([ROWS, WIDE], 1),
    ),
    "a half of SDXL": ({"<mira>": WIDE}, WIDE),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_a_safetensors_embedding_is_read(case: str) -> None:
    tensors, expected = SAFETENSORS[case]
    file = read_words(safetensors(tensors), "mira")
    layout = case.split(",")[0].split(" with ")[0].replace("a half of SDXL", "diffusers")
    assert file.flavour == f"{layout} .safetensors"
    assert_rows(only_word(file), expected)


def test_a_pair_keeps_its_halves_apart() -> None:
    for data in (safetensors({"clip_l": ROWS, "clip_g": WIDE}), pickled([{"clip_g": WIDE, "clip_l": ROWS}])):
        word = read_embedding(data, "mira")
        assert (word.split, word.family) == (768, "sdxl")
        assert np.array_equal(word.encoders()["clip_g"], WIDE.numpy())


def test_families_follow_from_the_widths() -> None:
    for width, family in ((768, "sd1"), (1024, "sd2"), (1280, "other"), (128, "other")):
        assert read_embedding(safetensors({"emb_params": torch.ones(1, width)}), "mira").family == family


def test_what_other_trainers_say_in_the_header_is_taken_over() -> None:
    metadata = {"step": "250", "sd_checkpoint_name": "anime", "sd_checkpoint": "0a1b2c3d", "name": "mira"}
    word = read_embedding(safetensors({"emb_params": ROWS}, metadata), "other")
    assert (word.name, word.trigger, word.step) == ("other", "mira", 250)
    assert (word.model, word.model_hash) == ("anime", "0a1b2c3d")


def test_a_token_of_diffusers_is_shown_and_any_key_may_be_one() -> None:
    for token in ("<mira>", "params", "way_out", "lora_style", "t"):
        assert read_embedding(safetensors({token: ROWS}), "mira").trigger == token
    assert read_embedding(safetensors({"clip_l": ROWS}), "mira").trigger == ""


def lora(**bundles: torch.Tensor) -> bytes:
    layers = {"lora_unet_down.lora_up.weight": torch.ones(4, 2, 1, 1), "lora_unet_down.alpha": torch.tensor(1.0)}
    return safetensors(layers | {f"bundle_emb.{key}": value for key, value in bundles.items()})


def test_a_lora_brings_its_words_each_with_its_own_name() -> None:
    file = read_words(
        lora(**{"mira.string_to_param.*": ROWS, "v 1.5.clip_l": ROWS, "v 1.5.clip_g": WIDE, "lina.emp_params": ROWS}),
        "style",
    )
    assert file.flavour == "LoRA with embeddings .safetensors"
    assert {word.name: word.vectors.shape[1] for word in file.words} == {"mira": 768, "v 1.5": 2048, "lina": 768}
    assert [word.trigger for word in file.words] == [word.name for word in file.words]
    with pytest.raises(VocableError, match="3 words") as caught:
        read_embedding(lora(**{f"{name}.emb_params": ROWS for name in "abc"}), "style")
    assert caught.value.code == "embedding.several"


def test_names_inside_a_lora_are_made_lawful_and_apart() -> None:
    data = lora(**{"../a.clip_l": ROWS, "A.clip_l": ROWS, "\x1b/.clip_l": ROWS})
    names = {word.name for word in read_words(data, "s").words}
    assert len(names) == 3
    assert {name.casefold() for name in names} == {"a", "a 2", "s"}


def png(pixels: np.ndarray[Any, Any], *chunks: tuple[bytes, bytes]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()[:-12] + b"".join(encode_chunk(*chunk) for chunk in chunks) + file.getvalue()[-12:]


def carrier(word: Embedding) -> np.ndarray[Any, Any]:
    picture = np.random.default_rng(0).integers(1, 255, (64, 48, 3), dtype=np.uint8)
    return encode_pixels(picture, payload_json(word), word.vectors[0])


WORD = Embedding("mira", ROWS.numpy(), step=60, model="anime", model_hash="0a1b2c3d4e")
PAIR = Embedding("mira", torch.cat([ROWS, WIDE], 1).numpy(), split=768)


@pytest.mark.parametrize("word", [WORD, PAIR], ids=["one encoder", "two encoders"])
def test_a_word_in_the_pixels_is_read_from_png_and_lossless_webp(word: Embedding) -> None:
    webp = io.BytesIO()
    Image.fromarray(carrier(word)).save(webp, "WEBP", lossless=True, exact=True)
    for data, container in ((png(carrier(word)), "PNG"), (webp.getvalue(), "WebP")):
        file = read_words(data, "mira")
        assert file.flavour == f"{'SDXL' if word.split else 'webui'} {container} (pixels)"
        assert only_word(file).vectors.tobytes() == word.vectors.tobytes()
        assert only_word(file).step == word.step


def test_only_the_pixels_of_a_picture_reach_the_decoder() -> None:
    """Pillow refuses texts of more than 1 MiB, and warns of broken profiles."""
    bomb = (b"zTXt", b"note\0\0" + zlib.compress(bytes(2 << 20)))
    assert only_word(read_words(png(carrier(WORD), bomb, (b"iCCP", b"?"), (b"acTL", b"?")), "mira")).step == 60


def test_numbers_of_a_tensor_of_the_wrong_shape_are_not_touched() -> None:
    def load() -> bytes:
        raise AssertionError

    for shape in ((129, 1), (1, 8193), (1 << 20, 1 << 10), (1, 1, 1)):
        strides = row_major(shape)
        vectors = describe_tensor(Storage("F32", 1 << 30, load), 0, shape, strides)
        with pytest.raises(VocableError) as caught:
            find_words({"<mira>": vectors}, "mira", {})
        assert caught.value.code == "embedding.shape"


def test_the_text_of_a_picture_goes_before_its_pixels() -> None:
    from engine.embedding.payload import KEY, encode_payload

    other = Embedding("mira", ROWS.numpy() + 1, step=61)
    file = read_words(png(carrier(WORD), (b"tEXt", KEY.encode() + b"\0" + encode_payload(other).encode())), "mira")
    assert (file.flavour, only_word(file).step) == ("webui PNG (text chunk)", 61)


def test_pictures_without_a_word_are_told_apart_from_broken_files() -> None:
    plain = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    files = {"PNG": png(plain), "preview": png(carrier(WORD)), "huge": SIGNATURE}
    for kind in ("WEBP", "JPEG", "GIF", "AVIF"):
        file = io.BytesIO()
        Image.fromarray(carrier(WORD)).save(file, kind, quality=80)
        files[kind] = file.getvalue()
    header = (5000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0"
    files["huge"] += encode_chunk(b"IHDR", header) + encode_chunk(b"IDAT", b"") + encode_chunk(b"IEND", b"")
    for kind, data in files.items():
        with pytest.raises(VocableError) as caught:
            read_words(data, "mira.preview" if kind == "preview" else "mira")
        assert (kind, caught.value.code) == (kind, "embedding.absent")


dtypes = st.sampled_from([torch.float16, torch.float32, torch.float64, torch.bfloat16])
tables = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.floats(-9, 9, width=32))
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables, dtypes, keys, st.sampled_from([*SERIALISATIONS, "safetensors"]))
def test_any_token_shape_and_type_is_read(
    table: np.ndarray[Any, Any], dtype: torch.dtype, token: str, container: str
) -> None:
    rows = torch.tensor(table).to(dtype)
    if container == "safetensors":
        data = safetensors({token: rows}) if token != "__metadata__" else safetensors({"a": rows})
    else:
        data = pickled({token: rows}, **SERIALISATIONS[container])
    if not token.startswith("bundle_emb."):
        assert_rows(read_embedding(data, "mira"), rows)
