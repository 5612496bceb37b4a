"""Golden numbers: webui.md section 8, worked out by its formulas; where binary fractions would add a piece to a count
that is whole, the exact count holds."""

from __future__ import annotations

import pytest

from engine.errors import VocableError
from engine.preprocess.geometry import centred_box, choose_size, offsets, outline, piece_count, split, split_ratio
from engine.preprocess.request import AutoSize, FocalCrop, PreprocessOptions, Split

PIECES = [
    (1024, 2048, 512, 512, 0.2, 0.5, [0, 256, 512]),
    (2048, 1024, 512, 512, 0.2, 0.5, [0, 256, 512]),
    (600, 1300, 512, 512, 0.2, 0.462, [0, 298, 597]),
    (1300, 600, 512, 512, 0.2, 0.462, [0, 298, 597]),
    (500, 1999, 512, 512, 0.2, 0.25, [0, 383, 767, 1150, 1534]),
    (4000, 1000, 512, 512, 0.2, 0.25, [0, 384, 768, 1152, 1536]),
    (3000, 1000, 512, 512, 0, 0.333, [0, 512, 1024]),
    (1000, 3000, 512, 512, 0.5, 0.333, [0, 256, 512, 768, 1024]),
    (1000, 2001, 512, 512, 0.5, 0.5, [0, 256, 512]),
    (640, 896, 512, 512, 0.9, 0.714, [0, 51, 102, 153, 204]),
    (900, 1600, 512, 768, 0.2, 0.844, [0, 142]),
    (1000, 4000, 512, 768, 0.2, 0.375, [0, 426, 853, 1280]),
    (1000, 4000, 768, 512, 0.2, 0.167, [0, 365, 731, 1097, 1462, 1828, 2194, 2560]),
    (1920, 1080, 640, 512, 0.2, 0.703, [0, 270]),
    (6000, 1000, 768, 512, 0.25, 0.25, [0, 576, 1152, 1728, 2304]),
    (333, 1777, 512, 512, 0.2, 0.187, [0, 370, 740, 1110, 1480, 1850, 2220]),
    (1600, 500, 256, 512, 0.35, 0.156, [0, 153, 307, 460, 614, 767, 921, 1074, 1228, 1382]),
    (100, 1000, 64, 64, 0.05, 0.1, [0, 57, 115, 172, 230, 288, 345, 403, 460, 518, 576]),
    (1000, 1000, 512, 1024, 0.2, 0.5, [0, 256, 512]),
    (1600, 800, 512, 1024, 0.1, 0.25, [0, 384, 768, 1152, 1536]),
]
"""Picture, size, overlap; proportions; where the pieces begin, along the long side of the scaled picture."""

SIZES = [
    ((1000, 1000), (640, 640), (640, 640)),
    ((1920, 1080), (768, 448), (704, 384)),
    ((1080, 1920), (448, 768), (384, 704)),
    ((3000, 2000), (768, 512), (768, 512)),
    ((2000, 3000), (512, 768), (512, 768)),
    ((4032, 3024), (704, 576), (512, 384)),
    ((3024, 4032), (576, 704), (384, 512)),
    ((800, 600), (704, 576), (512, 384)),
    ((600, 800), (576, 704), (384, 512)),
    ((1280, 720), (768, 448), (704, 384)),
    ((500, 501), (640, 640), (640, 640)),
    ((1500, 1000), (768, 512), (768, 512)),
    ((2560, 1080), None, None),
    ((1080, 2560), None, None),
    ((1000, 3000), None, None),
    ((640, 480), (704, 576), (512, 384)),
    ((1234, 987), (704, 576), (640, 512)),
    ((987, 1234), (576, 704), (512, 640)),
    ((512, 768), (512, 768), (512, 768)),
    ((700, 650), (640, 640), (640, 576)),
]
"""Picture; with the defaults the size of the largest area; that of the least error."""


@pytest.mark.parametrize(("width", "height", "to_width", "to_height", "overlap", "ratio", "starts"), PIECES)
def test_a_long_picture_is_cut_where_the_formula_says(
    width: int, height: int, to_width: int, to_height: int, overlap: float, ratio: float, starts: list[int]
) -> None:
    options = Split(enabled=True, threshold=1, overlap=overlap)
    upright = height > width
    along, tile = (to_width, to_height) if upright else (to_height, to_width)
    scaled = max(width, height) * along // min(width, height)
    assert offsets(scaled, tile, overlap) == starts
    assert round(split_ratio(width, height, to_width, to_height)[0], 3) == ratio
    boxes = [cut.box for cut in split(width, height, to_width, to_height, options)]
    back = max(width, height) / scaled
    assert [box and box[1 if upright else 0] for box in boxes] == pytest.approx([start * back for start in starts])


@pytest.mark.parametrize(("picture", "largest", "nearest"), SIZES)
def test_the_size_of_a_bucket_is_the_one_the_formula_prefers(
    picture: tuple[int, int], largest: tuple[int, int] | None, nearest: tuple[int, int] | None
) -> None:
    assert choose_size(*picture, AutoSize()) == largest
    assert choose_size(*picture, AutoSize(objective="error")) == nearest


def test_the_last_piece_ends_where_the_picture_ends() -> None:
    cuts = split(500, 1999, 512, 512, Split(enabled=True))
    assert cuts[-1].box is not None
    assert cuts[-1].box[3] == pytest.approx(1999, abs=1)
    assert all(cut.box is not None and cut.box[3] <= 1999 for cut in cuts)


@pytest.mark.parametrize(("threshold", "pieces"), [(0.49, 0), (0.5, 3)])
def test_only_pictures_as_long_as_the_threshold_says_are_split(threshold: float, pieces: int) -> None:
    assert len(split(512, 1024, 512, 512, Split(enabled=True, threshold=threshold))) == pieces


def test_a_picture_hardly_longer_than_the_size_is_one_piece() -> None:
    assert piece_count(512, 512, 0.2) == 1
    assert len(split(5120, 5121, 512, 512, Split(enabled=True, threshold=1))) == 1


@pytest.mark.parametrize("options", [{"split": Split(enabled=True)}, {"focal_crop": FocalCrop(enabled=True)}])
def test_a_ribbon_of_a_picture_is_refused_before_it_takes_all_memory(options: dict[str, object]) -> None:
    with pytest.raises(VocableError, match="1000000 x 10 pixels and is too long"):
        outline(1_000_000, 10, PreprocessOptions.model_validate(options))


def test_without_steps_the_middle_is_resized() -> None:
    (cut,) = outline(1000, 500, PreprocessOptions())
    assert (cut.step, cut.box, cut.width, cut.height) == ("resize", (250, 0, 750, 500), 512, 512)


def test_every_enabled_step_adds_its_pictures() -> None:
    options = PreprocessOptions(
        split=Split(enabled=True), focal_crop=FocalCrop(enabled=True), auto_size=AutoSize(enabled=True), keep_size=True
    )
    steps = [cut.step for cut in outline(500, 1250, options)]
    assert steps == ["split", "split", "split", "focal crop", "keep size"]
    assert [cut.step for cut in outline(1500, 1000, options)] == ["focal crop", "auto size", "keep size"]


def test_a_picture_that_no_bucket_suits_is_named_and_not_resized() -> None:
    with pytest.raises(VocableError, match="suits its 2560 x 1080"):
        outline(2560, 1080, PreprocessOptions(auto_size=AutoSize(enabled=True)))


def test_a_centred_box_stays_inside_the_picture() -> None:
    left, top, right, bottom = centred_box(333, 777, 512, 512)
    assert (left, right) == (0, 333)
    assert 0 <= top < bottom <= 777
    assert bottom - top == pytest.approx(333)
