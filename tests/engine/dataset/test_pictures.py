from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.dataset import pictures
from engine.dataset.pictures import decode_picture, fit_picture, read_picture
from engine.errors import VocableError

NAME = Path("1.png")


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)  # type: ignore[arg-type]
    return data.getvalue()


def halves(left: str, right: str, size: tuple[int, int] = (40, 20)) -> Image.Image:
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def test_a_turned_photo_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it right
    image = decode_picture(encode(halves("red", "blue"), exif=exif), NAME).image
    assert image.size == (20, 40)
    assert image.getpixel((10, 5)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_way_to_lie_is_turned_as_pillow_does(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.effect_noise((6, 4), 90)
    data = encode(image, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert decode_picture(data, NAME).image.tobytes() == expected.tobytes()


def test_a_garbled_note_does_not_keep_a_photo_from_being_turned() -> None:
    garbled = struct.pack("<HHL4s", 0x0100, 2, 4, b"wide")  # ImageWidth as a text
    turned = struct.pack("<HHL4s", 0x0112, 3, 1, b"\6\0\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 2) + garbled + turned + bytes(4)
    assert decode_picture(encode(halves("red", "blue"), exif=exif), NAME).image.size == (20, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_see_through_parts_are_laid_on_white(mode: str) -> None:
    layer = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    layer.putpixel((0, 0), (0, 0, 0, 255))
    decoded = decode_picture(encode(layer.convert(mode)), NAME)
    assert decoded.transparent
    assert decoded.image.mode == "RGB"
    assert (decoded.image.getpixel((0, 0)), decoded.image.getpixel((3, 3))) == ((0, 0, 0), (255, 255, 255))


def test_an_opaque_alpha_channel_is_no_transparency() -> None:
    assert not decode_picture(encode(Image.new("RGBA", (4, 4), "red")), NAME).transparent


def test_grey_of_sixteen_bits_keeps_its_shades() -> None:
    image = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    shades = decode_picture(encode(image), NAME).image
    assert [shades.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_picture(data, NAME).image.getpixel((1, 1)) == (255, 0, 0)


def test_the_ending_does_not_decide_the_format() -> None:
    assert decode_picture(encode(Image.new("RGB", (4, 4)), "JPEG"), NAME).image.size == (4, 4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no picture", "not a picture"),
        (encode(Image.effect_noise((64, 64), 90))[:900], "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"", "not a picture"),
    ],
)
def test_what_is_no_whole_picture_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(VocableError, match=reason) as caught:
        decode_picture(data, NAME)
    assert caught.value.code == "dataset.picture"
    assert "1.png" in caught.value.title


@pytest.mark.parametrize("pixels", [50, 99])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", pixels)
    with pytest.raises(VocableError, match="10 x 10"):
        decode_picture(encode(Image.new("RGB", (10, 10))), NAME)


def test_what_the_decoder_takes_for_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(VocableError, match="64,000,000"):
        decode_picture(encode(Image.new("1", (10, 10))), NAME)


def test_fitting_fills_the_size_and_keeps_proportions() -> None:
    circle = Image.new("RGB", (300, 100), "white")
    circle.paste("black", (140, 40, 160, 60))
    fitted = np.asarray(fit_picture(circle, 64, 64).convert("L")) < 128
    height, width = fitted.any(axis=1).sum(), fitted.any(axis=0).sum()
    assert fitted.shape == (64, 64)
    assert height == width == 13 or abs(int(height) - int(width)) <= 1


def test_what_is_no_ordinary_file_is_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(VocableError, match="ordinary file"):
        read_picture(tmp_path / "1.png")
