"""One picture of a dataset: foreign bytes in, an upright RGB picture of the training size out.

Called by the latent cache, in the worker. No torch. The rules here carry a number, `CROP_RULE`, because cached latents
depend on them.
"""

from __future__ import annotations

import contextlib
import io
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from engine.errors import VocableError

CROP_RULE = 1
"""Number of the rules by which bytes become a picture of the training size; counts up when a result would change."""

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels: some 250 MB once in memory."""

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
"""Decided by content: an ending that says otherwise does no harm."""


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by EXIF's number for how it lies."""


@dataclass(frozen=True)
class DecodedPicture:
    image: Image.Image
    """Mode RGB, turned as its EXIF says; the first frame of several."""
    transparent: bool
    """Some of it was see-through and now shows white."""


def read_picture(path: Path) -> bytes:
    """Read a picture's file whole. Raises VocableError `dataset.picture` for what cannot be read or is too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _fault(path, "is not an ordinary file")
        if status.st_size > MAX_FILE_BYTES:
            raise _fault(path, f"is larger than {MAX_FILE_BYTES // 1024**2} MiB")
        if status.st_size == 0:
            raise _fault(path, "is empty (0 bytes)")
        return path.read_bytes()
    except OSError as error:
        raise _fault(path, f"could not be read ({error.strerror})") from error


def decode_picture(data: bytes, path: Path) -> DecodedPicture:
    """Decode foreign bytes under limits; transparency is laid on white, 16 bits a channel become 8.

    Raises:
        VocableError: `dataset.picture` with the reason; `path` only names the picture.
    """
    return flatten(decode_layers(data, path).image)


@dataclass(frozen=True)
class DecodedLayers:
    image: Image.Image
    """Mode RGB, or RGBA when the file can hold transparency; upright; the first frame of several."""
    turned: bool
    """Its EXIF says that it lay on its side or was mirrored."""
    animated: bool
    """It was the first frame of several."""


def decode_layers(data: bytes, path: Path) -> DecodedLayers:
    """Decode foreign bytes under limits and keep their transparency; 16 bits a channel become 8.

    Raises:
        VocableError: `dataset.picture` with the reason; `path` only names the picture.
    """
    with _refusals(path):
        opened = _open(data, path)
        animated = (
            getattr(opened, "is_animated", False) and opened.format != "MPO"
        )  # phones put a preview behind a photo
        opened.load()
        turn = _TURNS.get(_orientation(opened))
        # Not by Pillow's exif_transpose, which writes all notes anew and fails where one of them is garbled.
        upright = opened if turn is None else opened.transpose(turn)
        return DecodedLayers(_eight_bit_layers(upright), turn is not None, animated)


def measure_picture(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height in pixels, upright, as `decode_layers` would give it; only the file's header is read.

    Raises:
        VocableError: `dataset.picture` when the header already tells that it will not do.
    """
    with _refusals(path):
        opened = _open(data, path)
        on_its_side = _orientation(opened) >= 5
        return (opened.height, opened.width) if on_its_side else opened.size


def flatten(image: Image.Image, background: str = "white") -> DecodedPicture:
    """Lay an RGBA picture on a colour; one of mode RGB stays as it is."""
    if image.mode == "RGB":
        return DecodedPicture(image, transparent=False)
    ground = Image.new("RGBA", image.size, background)
    opaque = image.getchannel("A").getextrema()[0] == 255
    return DecodedPicture(Image.alpha_composite(ground, image).convert("RGB"), transparent=not opaque)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn whatever decoders raise at foreign bytes into the one error."""
    try:
        yield
    except VocableError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _fault(path, f"has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise _fault(path, "is not a picture of a known format") from None
    except Exception as error:
        # Decoders meet hostile bytes with whatever exception lies nearest; each means the same here.
        raise _fault(path, f"is damaged ({error})") from error


def _open(data: bytes, path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        opened = Image.open(io.BytesIO(data), formats=_FORMATS)
    if opened.width * opened.height > MAX_PIXELS:
        raise _fault(path, f"has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS:,}")
    return opened


def fit_picture(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale `image` to fill `width` x `height` pixels and cut what stands over evenly; its proportions stay."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def _orientation(image: Image.Image) -> int:
    """EXIF's number for how the picture lies, 1 for upright; also where what calls itself EXIF is none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the picture itself may well be sound: notes that cannot be read are none
        return 1
    return value if value in range(1, 9) else 1


def _eight_bit_layers(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits: Pillow's own conversion would clip it to white."""
    values = np.asarray(image, dtype=np.float64)
    full = 1.0 if image.mode == "F" else 65535.0
    return Image.fromarray(np.clip(values / full * 255 + 0.5, 0, 255).astype(np.uint8), mode="L")


def _fault(path: Path, what: str) -> VocableError:
    return VocableError("dataset.picture", f"The picture '{path.name}' {what}.")
