"""One picture of a dataset: foreign bytes in, an upright RGB picture of the training size out.

Called by the latent cache, in the worker. No torch. The rules here carry a number, `CROP_RULE`, because cached latents
depend on them.
"""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import VocableError

CROP_RULE = 1
"""Number of the rules by which bytes become a picture of the training size; counts up when a result would change."""

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, in pixels: some 250 MB once in memory."""

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
"""Decided by content: an ending that says otherwise does no harm."""


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
        return path.read_bytes()
    except OSError as error:
        raise _fault(path, f"could not be read ({error.strerror})") from error


def decode_picture(data: bytes, path: Path) -> DecodedPicture:
    """Decode foreign bytes under limits; transparency is laid on white, 16 bits a channel become 8.

    Raises:
        VocableError: `dataset.picture` with the reason; `path` only names the picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=_FORMATS)
        if opened.width * opened.height > MAX_PIXELS:
            raise _fault(path, f"has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS:,}")
        opened.load()
        return _flatten(ImageOps.exif_transpose(opened))
    except VocableError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _fault(path, f"has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise _fault(path, "is not a picture of a known format") from None
    except Exception as error:
        # Decoders meet hostile bytes with whatever exception lies nearest; each means the same here.
        raise _fault(path, f"is damaged ({error})") from error


def fit_picture(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale `image` to fill `width` x `height` pixels and cut what stands over evenly; its proportions stay."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def _flatten(image: Image.Image) -> DecodedPicture:
    if image.mode.startswith("I") or image.mode == "F":
        return DecodedPicture(_eight_bits(image).convert("RGB"), transparent=False)
    if not image.has_transparency_data:
        return DecodedPicture(image.convert("RGB"), transparent=False)
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    opaque = layer.getchannel("A").getextrema()[0] == 255
    return DecodedPicture(Image.alpha_composite(white, layer).convert("RGB"), transparent=not opaque)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits: Pillow's own conversion would clip it to white."""
    values = np.asarray(image, dtype=np.float64)
    full = 1.0 if image.mode == "F" else 65535.0
    return Image.fromarray(np.clip(values / full * 255 + 0.5, 0, 255).astype(np.uint8), mode="L")


def _fault(path: Path, what: str) -> VocableError:
    return VocableError("dataset.picture", f"The picture '{path.name}' {what}.")
