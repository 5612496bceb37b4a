"""Foreign files: every defect is refused with a code and a reason, quickly and without harm."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.embedding.payload import KEY, encode_payload, payload_json
from engine.embedding.pixels import encode_pixels
from engine.embedding.png import SIGNATURE, walk_chunks
from engine.embedding.read import read_embedding
from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors
from engine.errors import VocableError

WORD = Embedding("lyra", np.linspace(-1, 1, 256, dtype=np.float32).reshape(2, 128), step=7)
PAYLOAD = encode_payload(WORD).encode()


def tensors(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: str = "F32", shape: Any = (1, 4), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, end: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    picture = chunk(b"IDAT", zlib.compress(b"\0\0"))
    return SIGNATURE + header + b"".join(chunks) + picture + chunk(b"IEND", b"") + end


def text(value: bytes = PAYLOAD, key: str = KEY) -> bytes:
    return chunk(b"tEXt", key.encode() + b"\0" + value)


def packed(value: bytes) -> bytes:
    return chunk(b"zTXt", KEY.encode() + b"\0\0" + zlib.compress(value))


def international(value: bytes, *, compress: bool) -> bytes:
    flag, content = (b"\1", zlib.compress(value)) if compress else (b"\0", value)
    return chunk(b"iTXt", KEY.encode() + b"\0" + flag + b"\0en\0\0" + content)


def payload(**changes: Any) -> bytes:
    values = json.loads(base64.b64decode(PAYLOAD)) | changes
    return base64.b64encode(json.dumps(values).encode())


def tensor(value: Any) -> bytes:
    return payload(string_to_param={"*": {"TORCHTENSOR": value}})


GOOD_PICTURES = [
    png(text()),
    png(packed(PAYLOAD)),
    png(international(PAYLOAD, compress=False)),
    png(international(PAYLOAD, compress=True)),
    png(text(b"a girl", "parameters"), text()),
]

BROKEN = {
    "empty": b"",
    "nothing known": b"\1\2\3\4 and so on",
    "header cut short": tensors({})[:4],
    "header longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "header of 2 MiB": tensors(b"{" + b" " * (2 << 20) + b"}"),
    "header no JSON": tensors(b"{'a': 1}"),
    "header no UTF-8": tensors(b'{"\xff": 1}'),
    "header nested deep": tensors(b'{"a":' + b"[" * 900_000),
    "key twice": tensors(b'{"emb_params":{},"emb_params":{}}'),
    "metadata no text": tensors({"__metadata__": {"a": 1}, "emb_params": entry()}, bytes(16)),
    "metadata of 1025 entries": tensors(
        {"__metadata__": {str(n): "" for n in range(1025)}, "emb_params": entry()}, bytes(16)
    ),
    "8193 tensors": tensors({str(n): entry("U8", (0,), (0, 0)) for n in range(8193)}),
    "gap": tensors({"emb_params": entry(offsets=(16, 32))}, bytes(32)),
    "overlap": tensors({"emb_params": entry(), "b": entry(offsets=(8, 24))}, bytes(24)),
    "beyond the end": tensors({"emb_params": entry()}, bytes(8)),
    "trailing bytes": tensors({"emb_params": entry()}, bytes(17)),
    "unknown dtype": tensors({"emb_params": entry("I32")}, bytes(16)),
    "dtype a list": tensors({"emb_params": entry() | {"dtype": ["F32"]}}, bytes(16)),
    "negative shape": tensors({"emb_params": entry(shape=(-1, -4))}, bytes(16)),
    "shape of truth values": tensors({"emb_params": entry(shape=(True, 4))}, bytes(16)),
    "huge shape": tensors({"emb_params": entry(shape=(1 << 31, 1 << 31))}, bytes(16)),
    "extra field": tensors({"emb_params": entry() | {"stride": 0}}, bytes(16)),
    "PNG cut short": png(text())[:-20],
    "PNG with a zip behind": png(text(), end=b"PK\3\4"),
    "PNG with a wrong checksum": png(text()).replace(PAYLOAD[:8], PAYLOAD[1:9], 1),
    "PNG without header": SIGNATURE + text() + chunk(b"IEND", b""),
    "PNG with two words": png(text(), text()),
    "PNG of endless chunks": png(*[chunk(b"aaAa", b"")] * 70_000),
    "inflates beyond the limit": png(packed(b"A" * (17 << 20))),
    "does not inflate": png(chunk(b"zTXt", KEY.encode() + b"\0\0 not deflate")),
    "packed in an unknown way": png(chunk(b"zTXt", KEY.encode() + b"\0\1" + zlib.compress(PAYLOAD))),
    "deflate cut short": png(chunk(b"zTXt", KEY.encode() + b"\0\0" + zlib.compress(PAYLOAD)[:-9])),
    "malformed iTXt": png(chunk(b"iTXt", KEY.encode() + b"\0\0\0en")),
    "no base64": png(text(b"?" + PAYLOAD)),
    "base64 with line ends": png(text(PAYLOAD[:40] + b"\n" + PAYLOAD[40:])),
    "JSON a list": png(text(base64.b64encode(b"[1]"))),
    "JSON with NaN": png(text(base64.b64encode(b'{"step": NaN}'))),
    "JSON nested deep": png(text(base64.b64encode(b"[" * 1_000_000))),
    "JSON of many lists": png(text(base64.b64encode(b"[" + b"[]," * 1_000_000 + b"[]]"))),
    "JSON of many numbers": png(text(base64.b64encode(b'{"a":[' + b"1," * 5_500_000 + b"1]}"))),
    "JSON with a huge number": png(text(base64.b64encode(b'{"step": ' + b"9" * 4000 + b"}"))),
    "JSON with an open string": png(text(base64.b64encode(b'{"a": "' + b'\\"' * 500_000))),
    "tensor of nothing": png(text(tensor([]))),
    "tensor of empty rows": png(text(tensor([[]]))),
    "ragged tensor": png(text(tensor([[1.0, 2.0], [3.0]]))),
    "tensor of text": png(text(tensor([["1.0"]]))),
    "tensor of truth values": png(text(tensor([[True]]))),
    "tensor of rank 3": png(text(tensor([[[1.0]]]))),
    "tensor of 129 rows": png(text(tensor([[0.5]] * 129))),
}

UNFIT = {
    "safetensors with NaN": ("not_finite", tensors({"emb_params": entry()}, np.full(4, np.nan, "<f4").tobytes())),
    "float64 beyond float32": (
        "not_finite",
        tensors({"emb_params": entry("F64", (1, 2))}, np.full(2, 1e300, "<f8").tobytes()),
    ),
    "JSON beyond float": (
        "not_finite",
        png(text(base64.b64encode(b'{"string_to_param":{"*":{"TORCHTENSOR":[[1e999]]}}}'))),
    ),
    "129 vectors": ("shape", tensors({"emb_params": entry(shape=(129, 1), offsets=(0, 516))}, bytes(516))),
    "too wide": ("shape", tensors({"emb_params": entry(shape=(1, 8193), offsets=(0, 4 * 8193))}, bytes(4 * 8193))),
    "rank 3": ("shape", tensors({"emb_params": entry(shape=(1, 2, 2))}, bytes(16))),
    "rank 0": ("shape", tensors({"emb_params": entry(shape=(), offsets=(0, 4))}, bytes(4))),
    "no numbers": ("shape", tensors({"emb_params": entry(shape=(0, 4), offsets=(0, 0))})),
    "no tensor": ("unsupported", png(text(payload(string_to_param={})))),
    "two tensors": (
        "unsupported",
        png(text(payload(string_to_param={"*": {"TORCHTENSOR": [[1.0]]}, "+": {"TORCHTENSOR": [[1.0]]}}))),
    ),
    "two words": ("unsupported", tensors({"<a>": entry(), "<b>": entry(offsets=(16, 32))}, bytes(32))),
    "unequal pair": (
        "shape",
        tensors({"clip_l": entry(), "clip_g": entry(shape=(2, 4), offsets=(16, 48))}, bytes(48)),
    ),
    "both halves in one": ("unsupported", tensors({"a": entry(shape=(1, 2048), offsets=(0, 8192))}, bytes(8192))),
    "pickle": ("unreadable", pickle.dumps({"a": 1})),
    "zip": ("unreadable", b"PK\3\4"),
    "GIF": ("absent", b"GIF89a and so on"),
    "JPEG named .png": ("absent", b"\xff\xd8\xff\xe0 and so on"),
    "plain picture": ("absent", png(text(b"a girl", "parameters"))),
}


@pytest.mark.parametrize("data", GOOD_PICTURES)
def test_a_picture_carries_its_word_in_any_kind_of_text_chunk(data: bytes) -> None:
    found = read_embedding(data, "lyra")
    assert found.vectors.tobytes() == WORD.vectors.tobytes()
    assert found.step == 7


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_with_a_reason(case: str) -> None:
    with pytest.raises(VocableError) as caught:
        read_embedding(BROKEN[case], "lyra")
    assert caught.value.code == "embedding.unreadable"
    assert caught.value.hint
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "case",
    ["inflates beyond the limit", "JSON of many lists", "JSON of many numbers", "JSON nested deep", "huge shape"],
)
def test_a_bomb_is_refused_before_it_takes_memory(case: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(VocableError):
            read_embedding(BROKEN[case], "lyra")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", UNFIT)
def test_a_file_that_is_no_usable_word_is_told_apart(case: str) -> None:
    code, data = UNFIT[case]
    with pytest.raises(VocableError) as caught:
        read_embedding(data, "lyra")
    assert caught.value.code == f"embedding.{code}"


def test_a_file_beyond_the_limit_is_not_even_looked_at() -> None:
    with pytest.raises(VocableError, match="bytes long"):
        read_embedding(b"\0" * 8 + b"{" + bytes(65 << 20), "lyra")


def test_foreign_numbers_of_the_header_do_no_harm() -> None:
    odd = {"vocable.step": "9" * 400, "vocable.model": "x\x1b]52;c;", "note": "\ud800", "long": "x" * (1 << 19)}
    found = read_embedding(tensors({"__metadata__": odd, "emb_params": entry()}, bytes(16)), "lyra")
    assert found.step == 0
    assert found.metadata.keys() == {"vocable.step", "vocable.model"}
    assert read_embedding(encode_safetensors(found), "lyra").model == odd["vocable.model"]


def webp() -> bytes:
    file = io.BytesIO()
    picture = np.full((20, 20, 3), 90, np.uint8)
    Image.fromarray(encode_pixels(picture, payload_json(WORD), WORD.vectors[0])).save(file, "WEBP", lossless=True)
    return file.getvalue()


def pixels() -> bytes:
    file = io.BytesIO()
    picture = np.full((20, 20, 3), 90, np.uint8)
    Image.fromarray(encode_pixels(picture, payload_json(WORD), WORD.vectors[0])).save(file, "PNG")
    return file.getvalue()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=3), cut=st.integers(0, 9)
)
def test_a_picture_of_broken_pixels_but_right_checksums_is_read_or_refused(
    places: list[tuple[float, int]], cut: int
) -> None:
    chunks = []
    for kind, content in walk_chunks(pixels()):
        changed = bytearray(content)
        for place, value in places if kind == b"IDAT" else ():
            changed[int(place * len(changed))] = value
        chunks.append(chunk(kind, bytes(changed[: len(changed) - cut] if kind == b"IDAT" else changed)))
    with suppress(VocableError):
        read_embedding(SIGNATURE + b"".join(chunks), "lyra")


@pytest.mark.parametrize(
    "make", [webp, pixels, lambda: encode_safetensors(WORD), lambda: png(text()), lambda: png(packed(PAYLOAD))]
)
@settings(max_examples=150)
@given(cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=4), cut=st.integers(0, 40))
def test_a_mutated_file_is_read_or_refused_but_never_crashes(
    make: Callable[[], bytes], cuts: list[tuple[float, bytes]], cut: int
) -> None:
    data = bytearray(make())
    for place, junk in cuts:
        start = int(place * len(data))
        data[start : start + len(junk)] = junk
    with suppress(VocableError):
        assert np.isfinite(read_embedding(bytes(data[: len(data) - cut]), "lyra").vectors).all()
