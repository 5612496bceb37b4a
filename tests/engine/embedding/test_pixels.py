"""The payload in a picture's pixels: the layout of other programs, and pictures that only look like it."""

from __future__ import annotations

import io
import zlib
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from engine.embedding.pixels import MAX_PAYLOAD, MIN_HEIGHT, decode_pixels, encode_pixels, nibble_stream
from engine.errors import VocableError
from tests.engine.embedding import pixel_reference

DOTS = np.linspace(-0.5, 0.5, 768, dtype=np.float32)


def picture(height: int = 40, width: int = 30, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise(length: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(length)


def test_the_generator_gives_the_known_outputs() -> None:
    assert nibble_stream(10).tolist() == [253, 242, 127, 44, 157, 27, 239, 133, 38, 79]
    assert nibble_stream(5000).tolist() == list(islice(pixel_reference.keys(), 5000))


def test_strips_of_a_picture_512_high_that_carries_58135_bytes_are_39_wide() -> None:
    payload = noise(58135)
    stored = len(zlib.compress(payload, 9))
    encoded = encode_pixels(picture(512, 512), payload[: 58135 - (stored - 58135)], DOTS)
    assert encoded.shape == (512, 39 + 1 + 512 + 1 + 39, 3)
    black = np.flatnonzero((encoded & 15).sum(axis=(0, 2)) == 0)
    assert black.tolist() == [39, 552]


@settings(max_examples=40)
@given(st.integers(MIN_HEIGHT, 90), st.integers(1, 50), st.binary(max_size=3000), st.integers(0, 2**32))
def test_a_stranger_reads_what_we_write(height: int, width: int, payload: bytes, seed: int) -> None:
    encoded = encode_pixels(picture(height, width, seed), payload, DOTS)
    assert np.array_equal(pixel_reference.encode(picture(height, width, seed), payload, fill=True) & 15, encoded & 15)
    assert pixel_reference.decode(encoded) == payload


@settings(max_examples=25)
@given(st.integers(MIN_HEIGHT, 90), st.binary(max_size=3000), st.booleans())
def test_we_read_what_a_stranger_writes(height: int, payload: bytes, fill: bool) -> None:
    assert decode_pixels(pixel_reference.encode(picture(height), payload, fill=fill)) == payload


@pytest.mark.parametrize("height", [*range(MIN_HEIGHT, 70), 127, 512, 769])
@pytest.mark.parametrize("length", [0, 1, 500, 60_000])
def test_what_is_written_is_read_at_every_height(height: int, length: int) -> None:
    payload = noise(length)
    assert decode_pixels(encode_pixels(picture(height), payload, DOTS)) == payload


@pytest.mark.parametrize("height", [16, 64, 600])
def test_a_black_picture_and_a_word_of_zeros_leave_nothing_to_be_cut_off(height: int) -> None:
    black = np.zeros((height, 9, 3), np.uint8)
    for seed in range(100):
        payload = noise(20 + seed, seed)
        assert decode_pixels(encode_pixels(black, payload, np.zeros(4, np.float32))) == payload


def test_a_dark_frame_around_the_picture_is_cut_off() -> None:
    encoded = encode_pixels(picture(), noise(700), DOTS)
    framed = np.pad(encoded, ((5, 9), (3, 4), (0, 0)))
    assert decode_pixels(framed) == noise(700)


def test_only_high_bits_of_the_strips_are_free() -> None:
    encoded = encode_pixels(picture(), noise(700), DOTS)
    assert decode_pixels(encoded | 0xF0) == noise(700)
    encoded[20, 2] ^= 1
    assert decodes_to(encoded) != noise(700)


def decodes_to(pixels: NDArray[np.uint8]) -> bytes | str | None:
    try:
        return decode_pixels(pixels)
    except VocableError as error:
        return error.code


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.full((64, 64, 3), 255, np.uint8),
        np.full((64, 64, 3), 16, np.uint8),
        picture(),
        np.pad(picture(), ((0, 0), (4, 4), (0, 0)), mode="edge") & np.uint8(0xF0),
        np.concatenate([picture(), np.zeros((40, 1, 3), np.uint8), picture(seed=1)], axis=1),
        np.concatenate([picture(), np.zeros((40, 2, 3), np.uint8), picture(width=4)], axis=1),
        np.concatenate([picture(), np.zeros((40, 2, 3), np.uint8), picture(seed=1)], axis=1),
    ],
)
def test_pictures_without_strips_carry_nothing(pixels: NDArray[np.uint8]) -> None:
    assert decode_pixels(pixels) is None


def test_a_picture_saved_with_loss_or_scaled_carries_nothing() -> None:
    image = Image.fromarray(encode_pixels(picture(128, 128), noise(3000), DOTS))
    lossy = io.BytesIO()
    image.save(lossy, "JPEG", quality=95)
    for changed in (Image.open(lossy), image.resize((image.width * 2, image.height * 2), Image.Resampling.LANCZOS)):
        assert decodes_to(np.asarray(changed)) in (None, "embedding.unreadable")


def test_a_lossless_webp_keeps_the_payload() -> None:
    file = io.BytesIO()
    Image.fromarray(encode_pixels(picture(128, 128), noise(3000), DOTS)).save(file, "WEBP", lossless=True)
    assert decode_pixels(np.asarray(Image.open(file).convert("RGB"))) == noise(3000)


def test_a_damaged_stream_is_refused() -> None:
    encoded = encode_pixels(picture(), noise(700), DOTS)
    encoded[30, 1] ^= 3
    with pytest.raises(VocableError, match="does not unpack") as caught:
        decode_pixels(encoded)
    assert caught.value.code == "embedding.unreadable"


def test_a_stream_that_ends_too_soon_is_refused() -> None:
    encoded = encode_pixels(picture(), noise(700), DOTS)
    with pytest.raises(VocableError, match="cut short"):
        decode_pixels(encoded[:20])


def test_a_bomb_is_refused_within_bounds() -> None:
    bomb = pixel_reference.encode(picture(64), b"\0" * (MAX_PAYLOAD + 1), fill=True)
    with pytest.raises(VocableError, match="longer than 8 MiB") as caught:
        decode_pixels(bomb)
    assert caught.value.code == "embedding.unreadable"


def test_too_much_for_readers_and_too_low_pictures_are_not_written() -> None:
    with pytest.raises(VocableError, match="at most") as caught:
        encode_pixels(picture(), b"0" * (MAX_PAYLOAD + 1), DOTS)
    assert caught.value.code == "embedding.unsupported"
    with pytest.raises(VocableError, match="at least 16 rows") as caught:
        encode_pixels(picture(MIN_HEIGHT - 1), b"0", DOTS)
    assert caught.value.code == "picture.small"
