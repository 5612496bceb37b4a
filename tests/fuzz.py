"""Mutated files of every format, drawn from a seed: what the readers of foreign files must live with.

A seed file is bytes and how to wrap them, so that a mutation may hit what lies behind a checksum, base64 or a length as
well as the container itself.
"""

from __future__ import annotations

import base64
import io
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from engine.embedding.convert import convert
from engine.embedding.overlay import encode_carrier
from engine.embedding.payload import payload_json
from engine.embedding.pixels import encode_pixels
from engine.embedding.png import SIGNATURE, encode_chunk
from engine.embedding.tensors import encode_tensors
from engine.embedding.vectors import Embedding
from tests.engine.embedding import hostile_files

EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 8, b"1e999", b"NaN", b"-1")
TOKENS = (b"[" * 40, b"{}", b'"":', b"\\ud800", b"\x1b]52;c;eA==\x07", b"../../", b"cposix\nsystem\n", b"R", b"\x93")


@dataclass(frozen=True)
class Seed:
    suffix: str
    core: bytes
    wrap: Callable[[bytes], bytes] = bytes
    """Makes the file of the core."""


def mutants(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Draw `count` files, each with the suffix of its format; equal seeds give equal files."""
    draw = random.Random(seed)
    good, bad = make_good_seeds(), make_bad_seeds()
    for _ in range(count):
        chosen = draw.choice(good if draw.random() < 0.8 else bad)
        core = chosen.core
        if draw.random() < 0.6:
            core = mutate(core, draw)
        data = chosen.wrap(core)
        if core is chosen.core or draw.random() < 0.2:
            data = mutate(data, draw, other=draw.choice(good).core)
        yield chosen.suffix, data


def mutate(data: bytes, draw: random.Random, *, other: bytes = b"") -> bytes:
    """Change one to eight places of `data`."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        data = draw.choice(_CHANGES)(bytearray(data), draw, other or data)
    return data


def make_good_seeds() -> list[Seed]:
    """Files of every format that is read or written."""
    one, pair = _word(768, 0), _word(768 + 1280, 768)
    seeds = [Seed(suffix, data) for word in (one, pair) for suffix, data in _converted(word)]
    bundle = {"bundle_emb.fox.string_to_param.*": one.vectors, "lora_unet_x.alpha": one.vectors[0, :1]}
    payload = payload_json(one)
    seeds += [
        Seed(".safetensors", encode_tensors(bundle, {})),
        Seed(".safetensors", encode_tensors({"<fox>": one.vectors[0]}, {})),
        Seed(".png", payload, lambda core: _with_text(base64.b64encode(core))),
        Seed(".png", base64.b64encode(payload), _with_text),
        Seed(".png", payload, _in_pixels("PNG")),
        Seed(".webp", payload, _in_pixels("WEBP")),
        Seed(".pt", hostile_files.word(hostile_files.tensor()), hostile_files.archive),
        Seed(".pt", hostile_files.word(hostile_files.tensor()), hostile_files.in_legacy),
        Seed(".png", encode_carrier(_word(64, 0), Image.new("RGB", (256, 256))), _with_right_sums),
    ]
    return seeds


def make_bad_seeds() -> list[Seed]:
    """Files that were made to do harm."""
    return [Seed(".bin", data) for data, _ in hostile_files.all_files().values() if len(data) < 1 << 16]


def _word(width: int, split: int) -> Embedding:
    vectors = np.random.default_rng(width).normal(0, 0.02, (2, width)).astype(np.float32)
    return Embedding("fox", vectors, step=60, model="sd-v1-5", model_hash="0a1b2c3d4e", split=split)


def _converted(word: Embedding) -> Iterator[tuple[str, bytes]]:
    for form in ("safetensors", "webui-pt", "diffusers", "onetrainer"):
        for suffix, data in convert(word, form).files:  # type: ignore[arg-type]
            yield "." + suffix.rpartition(".")[2], data


def _with_text(value: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = hostile_files.zlib.compress(b"\0\0\0\0")
    chunks = [(b"IHDR", header), (b"tEXt", b"sd-ti-embedding\0" + value), (b"IDAT", pixel), (b"IEND", b"")]
    return SIGNATURE + b"".join(encode_chunk(kind, content) for kind, content in chunks)


def _in_pixels(kind: str) -> Callable[[bytes], bytes]:
    decoration = np.random.default_rng(1).random(256, dtype=np.float32)

    def wrap(payload: bytes) -> bytes:
        pixels = encode_pixels(np.zeros((64, 64, 3), np.uint8), payload, decoration)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, lossless=True, exact=True)
        return file.getvalue()

    return wrap


def _with_right_sums(data: bytes) -> bytes:
    """A PNG whose checksums hold again, as far as its chunks can be told apart."""
    fixed, position = bytearray(data[:8]), 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        fixed += encode_chunk(kind, content)
        position += 12 + length
    return bytes(fixed)


def _place(data: bytearray, draw: random.Random) -> int:
    """Mostly near the start, where formats keep what they are."""
    return draw.randrange(min(len(data), draw.choice((16, 256, 1 << 12, 1 << 24))) or 1)


def _flip(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    if data:
        data[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    place, value = _place(data, draw), draw.choice((*EXTREMES, draw.randbytes(4)))
    data[place : place + len(value)] = value
    return bytes(data)


def _insert(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    place = _place(data, draw)
    data[place:place] = draw.choice((*TOKENS, *EXTREMES, draw.randbytes(draw.randrange(64))))
    return bytes(data)


def _remove(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    place = _place(data, draw)
    del data[place : place + draw.choice((1, 2, 4, 8, 100, 10_000))]
    return bytes(data)


def _repeat(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    place = _place(data, draw)
    data[place:place] = data[place : place + draw.choice((1, 8, 64, 4096))] * draw.choice((1, 2, 16))
    return bytes(data)


def _cut(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    return bytes(data[: draw.randrange(len(data) + 1)])


def _append(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    return bytes(data) + draw.choice((b"\0", draw.randbytes(20), other))


def _splice(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    return bytes(data[: _place(data, draw)]) + other[draw.randrange(len(other) or 1) :]


def _digit(data: bytearray, draw: random.Random, other: bytes) -> bytes:
    """Another number where a number stands as text."""
    places = [place for place in range(min(len(data), 4096)) if 48 <= data[place] <= 57]
    if places:
        place = draw.choice(places)
        data[place : place + 1] = draw.choice((b"0", b"9", b"99999999999999999999", b"-", b"1e400", b"true", b"[]"))
    return bytes(data)


_CHANGES = (_flip, _flip, _overwrite, _overwrite, _insert, _remove, _repeat, _cut, _append, _splice, _digit, _digit)
