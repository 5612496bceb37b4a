from __future__ import annotations

import io

from PIL import Image, ImageFilter

from engine.preprocess.likeness import Fingerprint, LookAlikes, fingerprint, sharpness
from tests.engine.preprocess.drawing import draw_noise, encode


def differing(first: Image.Image, second: Image.Image) -> int:
    return (fingerprint(first).bits ^ fingerprint(second).bits).bit_count()


def test_a_fingerprint_survives_scaling_and_recompression() -> None:
    picture = draw_noise((600, 400))
    again = Image.open(io.BytesIO(encode(picture.resize((300, 200)), "JPEG", quality=40)))
    assert differing(picture, again) <= 4
    assert all(differing(picture, draw_noise((600, 400), seed)) > 10 for seed in range(1, 20))


def test_a_fingerprint_is_the_same_after_writing_it_down() -> None:
    mark = fingerprint(draw_noise((64, 64)))
    assert Fingerprint.from_text(mark.to_text()) == mark


def test_the_first_of_those_that_look_alike_is_named() -> None:
    seen = LookAlikes(distance=6)
    for seed in range(100):
        seen.add(str(seed), fingerprint(draw_noise((80, 80), seed)))
    assert seen.find(fingerprint(draw_noise((160, 160), 70))) == ("70", 0)
    assert seen.find(fingerprint(draw_noise((160, 160), 170))) is None


def test_flat_pictures_of_different_colours_do_not_look_alike() -> None:
    seen = LookAlikes(distance=6)
    seen.add("red", fingerprint(Image.new("RGB", (64, 64), "red")))
    assert seen.find(fingerprint(Image.new("RGB", (64, 64), "blue"))) is None
    assert seen.find(fingerprint(Image.new("RGB", (99, 64), "red"))) is not None


def test_blur_takes_sharpness_away() -> None:
    picture = Image.effect_noise((800, 600), 60).filter(ImageFilter.GaussianBlur(1)).convert("RGB")
    sharp, blurred = sharpness(picture), sharpness(picture.filter(ImageFilter.GaussianBlur(6)))
    assert sharp > 100 * blurred
    assert sharpness(Image.new("RGB", (400, 2), "red")) == 0
