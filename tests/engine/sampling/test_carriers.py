"""Where pictures carry their text: chunks of PNG files, EXIF comments of JPEG and WebP files."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.sampling.carriers import MAX_BYTES, read_parameters

TEXT = "portrait of zoë, 漢字\nSteps: 1, Sampler: Euler, Seed: 2"
PLAIN = "a girl\nSteps: 1, Sampler: Euler, Seed: 2"


def save(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind, **options)
    return buffer.getvalue()


def png(text: str, how: str) -> bytes:
    info = PngInfo()
    match how:
        case "tEXt":
            info.add_text("parameters", text)
        case "zTXt":
            info.add_text("parameters", text, zip=True)
        case "UTF-8 in tEXt":
            info.add(b"tEXt", b"parameters\0" + text.encode())
        case _:
            info.add_itxt("parameters", text, zip=how == "packed iTXt")
    return save("PNG", pnginfo=info)


def photograph(kind: str, comment: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    return save(kind, exif=exif)


@pytest.mark.parametrize("how", ["iTXt", "packed iTXt", "UTF-8 in tEXt"])
def test_any_text_is_read_from_a_png(how: str) -> None:
    assert read_parameters(png(TEXT, how)) == TEXT


@pytest.mark.parametrize("how", ["tEXt", "zTXt"])
def test_western_text_is_read_from_a_png(how: str) -> None:
    assert read_parameters(png("zoë, Steps: 1", how)) == "zoë, Steps: 1"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("head", "encoding"),
    [(b"UNICODE\0", "utf-16-be"), (b"UNICODE\0", "utf-16-le"), (b"UNICODE\0", "utf-16"), (b"\0" * 8, "utf-8")],
)
def test_comments_in_every_encoding_are_read(kind: str, head: bytes, encoding: str) -> None:
    assert read_parameters(photograph(kind, head + TEXT.encode(encoding))) == TEXT


def test_an_ascii_comment_is_read() -> None:
    assert read_parameters(photograph("JPEG", b"ASCII\0\0\0" + PLAIN.encode() + b"\0")) == PLAIN


WITHOUT_TEXT = {
    "empty": b"",
    "no picture": b"not a picture",
    "plain PNG": save("PNG"),
    "plain JPEG": save("JPEG"),
    "another kind": save("GIF"),
    "cut PNG": png(TEXT, "iTXt")[:-20],
    "altered PNG": png(TEXT, "iTXt").replace(b"Sampler", b"sampler"),
    "signature only": b"\x89PNG\r\n\x1a\n" + zlib.compress(b"x"),
    "empty comment": photograph("JPEG", b"UNICODE\0"),
    "long chunk": png("x" * (MAX_BYTES + 1), "tEXt"),
    "long packed chunk": png("x" * 20_000_000, "zTXt"),
    "long comment": photograph("WEBP", b"\0" * 8 + b"x" * (MAX_BYTES + 1)),
}


@pytest.mark.parametrize("kind", WITHOUT_TEXT)
def test_what_carries_no_text_or_too_much_has_none(kind: str) -> None:
    assert read_parameters(WITHOUT_TEXT[kind]) is None


@given(st.data())
@settings(max_examples=150)
def test_damaged_pictures_never_fail(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(DAMAGED))
    at = data.draw(st.integers(0, len(whole) - 1))
    spoilt = whole[:at] + data.draw(st.binary(max_size=6)) + whole[at + data.draw(st.integers(0, 6)) :]
    assert read_parameters(spoilt) is None or isinstance(read_parameters(spoilt), str)


DAMAGED = [
    png(TEXT, "packed iTXt"),
    *(photograph(kind, b"UNICODE\0" + TEXT.encode("utf-16-be")) for kind in ("JPEG", "WEBP")),
]


def test_texts_of_pictures_are_read_without_torch() -> None:
    code = (
        "import sys, engine.sampling.carriers, engine.sampling.infotext, engine.sampling.reuse;"
        "print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "set()"
