"""Pictures as they come: each kind of trouble has its sentence, and costs nothing but itself."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.preprocess.crew import Crew
from engine.preprocess.request import PreprocessOptions, PreprocessRequest
from engine.preprocess.results import PictureDone, PictureResult
from engine.preprocess.run import preprocess
from tests.engine.preprocess.drawing import draw_noise, encode


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def huge_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x9286] = b"x" * 20_000_000
    return exif


def halves() -> Image.Image:
    image = Image.new("RGB", (64, 64), "red")
    image.paste("blue", (32, 0, 64, 64))
    return image


def see_through_palette() -> bytes:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (32, 0, 64, 64))
    return encode(image, transparency=0)


def deep() -> bytes:
    shades = np.full((64, 64), 65535, np.uint16)
    shades[:, :32] = 32768
    return encode(Image.fromarray(shades))


BAD = {
    "zero-bytes.png": (b"", "is empty (0 bytes)."),
    "no-picture.jpg": (b"no picture", "is not a picture of a known format."),
    "bomb.png": (bomb(60_000, 60_000), "has more than 64,000,000 pixels."),
    "large.png": (bomb(9_000, 9_000), "has 9000 x 9000 pixels, more than 64,000,000."),
    "truncated.png": (encode(draw_noise((64, 64)))[:2000], "is damaged (image file is truncated"),
    "truncated.jpg": (encode(draw_noise((64, 64)), "JPEG")[:900], "is damaged (image file is truncated"),
}
ODD = {
    "wrong-ending.png": (encode(halves(), "JPEG", quality=95), ()),
    "cmyk.jpg": (encode(halves().convert("CMYK"), "JPEG", quality=95), ()),
    "cmyk.tif": (encode(halves().convert("CMYK"), "TIFF"), ()),
    "palette.png": (encode(halves().quantize(4)), ()),
    "broken-exif.jpg": (encode(halves(), "JPEG", quality=95, exif=b"Exif\0\0" + b"rubbish" * 500), ()),
    "huge-exif.png": (
        encode(halves().transpose(Image.Transpose.ROTATE_90), exif=huge_exif(6)),
        ("turned upright",),
    ),
    "animated.gif": (
        encode(halves(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 64), "green")]),
        ("first frame of several",),
    ),
}
"""All red on the left and blue on the right once they are upright."""

OTHERS = {
    "see-through.png": see_through_palette(),
    "deep.png": deep(),
    "opaque.png": encode(halves().convert("RGBA")),
}


@dataclass(frozen=True)
class Work:
    results: dict[str, PictureResult]
    destination: Path

    def open(self, source: str) -> Image.Image:
        """The one picture made of a source."""
        (output,) = self.results[source].outputs
        with Image.open(self.destination / output.name) as made:
            made.load()
            return made


def prepare(source: Path, destination: Path, **options: object) -> Work:
    checked = PreprocessOptions.model_validate({"width": 64, "height": 64, **options})
    request = PreprocessRequest(source=str(source), destination=str(destination), options=checked)
    events = [event for event in preprocess(request, workers=2) if isinstance(event, PictureDone)]
    return Work({event.picture.source: event.picture for event in events}, destination)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in {**BAD, **ODD}.items():
        (folder / name).write_bytes(data)
    for name, data in OTHERS.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.fixture(scope="module")
def flat(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    return prepare(source, tmp_path_factory.mktemp("flat"), background="#00ff00")


@pytest.fixture(scope="module")
def masked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    return prepare(source, tmp_path_factory.mktemp("masked"), alpha="keep", width=128, height=128)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_prepared_is_named_with_the_reason(flat: Work, name: str) -> None:
    result = flat.results[name]
    assert (result.state, result.outputs) == ("failed", ())
    assert result.reason.startswith(f"The picture '{name}' {BAD[name][1]}")
    assert not list(flat.destination.glob(f"*{Path(name).stem}*"))


@pytest.mark.parametrize("name", ODD)
def test_odd_but_sound_pictures_are_prepared(flat: Work, name: str) -> None:
    assert (flat.results[name].state, flat.results[name].notes) == ("made", ODD[name][1])
    made = flat.open(name)
    assert (made.mode, made.info) == ("RGB", {})
    pixels = np.asarray(made, np.int16)
    assert np.abs(pixels[32, 8] - (255, 0, 0)).max() <= 12
    assert np.abs(pixels[32, 56] - (0, 0, 255)).max() <= 12


def test_sixteen_bits_a_channel_keep_their_shades(flat: Work) -> None:
    made = flat.open("deep.png")
    assert (made.getpixel((8, 32)), made.getpixel((56, 32))) == ((128, 128, 128), (255, 255, 255))


def test_a_palettes_transparency_is_laid_on_the_colour(flat: Work) -> None:
    made = flat.open("see-through.png")
    assert flat.results["see-through.png"].notes == ("transparent parts laid on #00ff00",)
    assert (made.mode, made.getpixel((8, 32)), made.getpixel((56, 32))) == ("RGB", (0, 255, 0), (0, 0, 255))


def test_transparency_kept_as_a_mask_leaves_the_colours_under_it(masked: Work) -> None:
    made = masked.open("see-through.png")
    assert masked.results["see-through.png"].notes == ("transparency kept as a mask",)
    assert (made.mode, made.getpixel((8, 64)), made.getpixel((120, 64))) == ("RGBA", (255, 0, 0, 0), (0, 0, 255, 255))


def test_an_opaque_alpha_channel_is_no_mask(masked: Work) -> None:
    assert masked.results["opaque.png"].notes == ()
    assert masked.open("opaque.png").mode == "RGB"


def test_a_pipe_is_passed_over(flat: Work) -> None:
    assert "pipe.png" not in flat.results


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(encode(halves()))
    return tmp_path / "a.png"


def test_a_picture_that_crashes_or_stalls_its_process_costs_only_itself(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Crew(PreprocessOptions(), 1, time_limit_s=60) as crew:
        assert crew.measure(picture).result().width == 64
        (child,) = crew._children
        monkeypatch.setattr(child, "converse", after(child.kill, child.converse))
        crashed = crew.prepare(picture).exception()
        monkeypatch.setattr(crew, "_time_limit_s", 0)
        stalled = crew.prepare(picture).exception()
        monkeypatch.setattr(crew, "_time_limit_s", 60)
        assert crew.prepare(picture).result().facts.width == 64
    assert str(crashed).startswith("The picture 'a.png' made its decoder crash.")
    assert str(stalled).startswith("The picture 'a.png' took longer than 0 seconds.")


def after(first: Callable[[], None], ask: Callable[[dict[str, str], float], bytes]) -> Callable[..., bytes]:
    def asking(request: dict[str, str], time_limit_s: float) -> bytes:
        first()
        return ask(request, time_limit_s)

    return asking
