from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from engine.errors import VocableError
from engine.preprocess.plan import plan
from engine.preprocess.request import Existing, PreprocessOptions, PreprocessRequest
from engine.preprocess.results import PictureDone, PictureResult, Summary
from engine.preprocess.run import preprocess
from engine.preprocess.texts import combine
from tests.engine.preprocess.drawing import draw_face, draw_noise, encode, write

SMALL = {"width": 64, "height": 64, "checks": {"blur": 0}}


@dataclass
class Place:
    """A source folder of three pictures, and a destination."""

    source: Path
    destination: Path
    results: dict[str, PictureResult] = field(default_factory=dict)

    def request(self, **options: object) -> PreprocessRequest:
        checked = PreprocessOptions.model_validate({**SMALL, **options})
        return PreprocessRequest(source=str(self.source), destination=str(self.destination), options=checked)

    def prepare(self, **options: object) -> Summary:
        *events, summary = preprocess(self.request(**options), workers=1)
        self.results = {event.picture.source: event.picture for event in events if isinstance(event, PictureDone)}
        assert isinstance(summary, Summary)
        return summary

    def names(self, pattern: str = "*.png") -> list[str]:
        return sorted(path.name for path in self.destination.glob(pattern))

    def bytes(self) -> dict[str, tuple[bytes, int]]:
        """Content and time of change of everything in the destination."""
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.destination.iterdir()}


@pytest.fixture
def place(tmp_path: Path, in_threads: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path / "source", tmp_path / "out")
    place.source.mkdir()
    for number, name in enumerate(("10.png", "2.png", "sea view.png")):
        write(place.source / name, draw_noise((96, 80), number))
    return place


def test_names_sort_as_the_sources_do_and_carry_their_stems(place: Place) -> None:
    summary = place.prepare(flip=True)
    assert place.names() == [
        "00000-0-2.png",
        "00000-1-2.png",
        "00001-0-10.png",
        "00001-1-10.png",
        "00002-0-sea view.png",
        "00002-1-sea view.png",
    ]
    assert (summary.total, summary.made, summary.failed, summary.files) == (3, 3, 0, 6)
    with (
        Image.open(place.destination / "00000-0-2.png") as made,
        Image.open(place.destination / "00000-1-2.png") as copy,
    ):
        assert made.size == (64, 64)
        assert made.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes() == copy.tobytes()


def test_a_second_run_changes_nothing_not_even_the_record(place: Place) -> None:
    (place.source / "bad.png").write_bytes(b"x")
    place.prepare()
    before = place.bytes()
    summary = place.prepare()
    assert (summary.made, summary.unchanged, summary.failed) == (0, 3, 1)
    assert place.bytes() == before


def test_what_was_deleted_is_made_again_and_the_rest_left(place: Place) -> None:
    place.prepare()
    (place.destination / "00001-0-10.png").unlink()
    assert place.prepare().made == 1
    assert len(place.names()) == 3


def test_other_options_replace_what_was_made_before(place: Place) -> None:
    place.prepare(flip=True)
    summary = place.prepare(width=128)
    assert (summary.made, summary.left) == (3, ())
    assert place.names() == ["00000-0-2.png", "00001-0-10.png", "00002-0-sea view.png"]
    with Image.open(place.destination / "00000-0-2.png") as made:
        assert made.size == (128, 64)


def test_a_new_picture_in_between_moves_the_numbers_of_those_behind_it(place: Place) -> None:
    place.prepare()
    before = (place.destination / "00001-0-10.png").read_bytes()
    write(place.source / "3.png", draw_noise((96, 80), 7))
    summary = place.prepare()
    assert place.names() == ["00000-0-2.png", "00001-0-3.png", "00002-0-10.png", "00003-0-sea view.png"]
    assert (place.destination / "00002-0-10.png").read_bytes() == before
    assert (summary.made, summary.unchanged) == (3, 1)


def test_a_picture_that_took_the_name_of_another_leaves_both_right(place: Place) -> None:
    same_stem = encode(draw_noise((96, 80), 8), "JPEG")
    (place.source / "2.jpg").write_bytes(same_stem)
    place.prepare()
    before = {name: (place.destination / name).read_bytes() for name in ("00000-0-2.png", "00001-0-2.png")}
    write(place.source / "1.png", draw_noise((96, 80), 9))
    place.prepare()
    assert (place.destination / "00001-0-2.png").read_bytes() == before["00000-0-2.png"]
    assert (place.destination / "00002-0-2.png").read_bytes() == before["00001-0-2.png"]


def test_files_of_somebody_else_are_never_written_over(place: Place) -> None:
    place.destination.mkdir()
    (place.destination / "00001-0-10.png").write_bytes(b"mine")
    summary = place.prepare()
    assert (summary.made, summary.failed) == (2, 1)
    assert (place.destination / "00001-0-10.png").read_bytes() == b"mine"
    assert place.results["10.png"].reason.startswith("'00001-0-10.png' in the destination was not made here")
    assert plan(place.request()).pictures[1].warnings == (
        "'00001-0-10.png' is there already, and is not known to be made here.",
    )


def test_a_picture_changed_by_hand_is_kept_whatever_is_asked(place: Place) -> None:
    place.prepare()
    retouched = place.destination / "00000-0-2.png"
    retouched.write_bytes(b"retouched")
    place.prepare()
    assert place.results["2.png"].state == "unchanged"
    assert place.results["2.png"].warnings == ("'00000-0-2.png' was changed after it was made; it is left as it is.",)
    assert place.prepare(width=128).failed == 1
    (place.source / "2.png").unlink()
    place.prepare(remove_left=True)
    assert retouched.read_bytes() == b"retouched"


def test_equal_files_are_taken_as_they_are_when_the_record_is_lost(place: Place) -> None:
    place.prepare()
    (place.destination / "preprocess.json").unlink()
    assert (place.prepare().made, place.prepare().unchanged) == (3, 3)


def test_files_of_pictures_that_are_gone_are_listed_and_removed_only_when_asked(place: Place) -> None:
    place.prepare()
    (place.source / "sea view.png").unlink()
    assert place.prepare().left == ("00002-0-sea view.png",)
    assert plan(place.request(remove_left=True)).summary.removed == ("00002-0-sea view.png",)
    assert len(place.names()) == 3
    summary = place.prepare(remove_left=True)
    assert (summary.left, summary.removed) == ((), ("00002-0-sea view.png",))
    assert place.names() == ["00000-0-2.png", "00001-0-10.png"]


def test_what_was_made_of_a_picture_stays_when_it_cannot_be_read_any_more(place: Place) -> None:
    place.prepare()
    (place.source / "2.png").write_bytes(b"damaged")
    summary = place.prepare()
    assert (summary.failed, summary.left) == (1, ())
    assert "00000-0-2.png" in place.names()


def test_the_record_tells_what_was_done_to_each_picture(place: Place) -> None:
    layer = draw_noise((200, 100), 5).convert("RGBA")
    layer.putpixel((0, 0), (0, 0, 0, 0))
    write(place.source / "1.png", layer)
    place.prepare(split={"enabled": True}, background="#102030")
    record = json.loads((place.destination / "preprocess.json").read_bytes())
    first = record["pictures"][0]
    assert record["options"]["background"] == "#102030"
    assert (first["source"], first["state"], first["width"], first["height"]) == ("1.png", "made", 200, 100)
    assert first["notes"] == ["transparent parts laid on #102030"]
    assert [output["step"] for output in first["outputs"]] == ["split"] * 3
    assert list(first["files"]) == ["00000-0-1.png", "00000-1-1.png", "00000-2-1.png"]


def test_debug_pictures_go_into_a_folder_of_their_own(place: Place) -> None:
    write(place.source / "3.png", draw_face((300, 100), (240, 50), 30))
    place.prepare(focal_crop={"enabled": True, "debug": True})
    assert place.names("debug/*") == ["00000-2.png", "00001-3.png", "00002-10.png", "00003-sea view.png"]
    assert len(place.names()) == 4
    place.prepare(focal_crop={"enabled": True})
    assert place.names("debug/*") == []


def test_the_focal_crop_holds_the_face(place: Place) -> None:
    write(place.source / "face.png", draw_face((600, 200), (480, 100), 60))
    place.prepare(width=128, height=128, focal_crop={"enabled": True})
    with Image.open(place.destination / place.results["face.png"].outputs[0].name) as made:
        assert made.getpixel((64, 75)) != (120, 120, 120)  # the plain wall that the middle of the picture shows


def test_look_alikes_are_told_or_left_out(place: Place) -> None:
    write(place.source / "z.jpg", draw_noise((48, 40), 1))  # a small copy of 2.png
    place.prepare()
    assert place.results["z.jpg"].warnings[0] == "It looks like '2.png' (2 of 64 bits differ)."
    summary = place.prepare(checks={"duplicates": "skip"})
    assert (summary.duplicates, summary.unchanged) == (1, 3)
    assert len(place.names()) == 3
    (place.source / "2.png").unlink()
    assert place.prepare(checks={"duplicates": "skip"}).made == 3  # it comes instead, and those behind it move up
    assert "00002-0-z.png" in place.names()


def test_small_and_blurred_pictures_are_warned_of_also_in_a_second_run(place: Place) -> None:
    write(place.source / "1.png", draw_noise((40, 32), 3))
    for _ in range(2):
        place.prepare(checks={"blur": 1e5})
        enlarged, blurred = place.results["1.png"].warnings
        assert enlarged == "It has 40 x 32 pixels and is enlarged 2 times."
        assert blurred.startswith("It looks blurred: its sharpness is ")
    place.prepare(checks={"blur": 0, "enlargement": 0})
    assert place.results["1.png"].warnings == ()


def test_captions_join_with_the_text_that_was_there(place: Place) -> None:
    (place.source / "2.txt").write_text("a fish\n")
    list(preprocess(place.request(captions={"existing": "prepend"}), captioner=SizeCaptioner(), workers=1))
    found = [path.read_text() for path in sorted(place.destination.glob("*.txt"))]
    assert found == ["a fish 64x64\n", "64x64\n", "64x64\n"]


@pytest.mark.parametrize(
    ("how", "both", "made_alone", "there_alone"),
    [
        ("ignore", "made", "made", ""),
        ("copy", "there", "made", "there"),
        ("prepend", "there made", "made", "there"),
        ("append", "made there", "made", "there"),
    ],
)
def test_what_becomes_of_existing_text(how: Existing, both: str, made_alone: str, there_alone: str) -> None:
    assert combine("there", "made", how) == both
    assert combine("", "made", how) == made_alone
    assert combine("there", "", how) == there_alone
    assert combine("", "", how) == ""


@dataclass
class SizeCaptioner:
    """Says how large a picture is."""

    identity: str = "size 1"

    def caption(self, pictures: Sequence[Image.Image], source: Path) -> list[str]:
        return [f"{picture.width}x{picture.height}" for picture in pictures]


def test_captions_may_go_into_names_and_a_new_captioner_makes_them_anew(place: Place) -> None:
    request = place.request(captions={"save_to": "name"})
    list(preprocess(request, captioner=SizeCaptioner(), workers=1))
    assert place.names("*") == ["00000-0- 64x64.png", "00001-0- 64x64.png", "00002-0- 64x64.png", "preprocess.json"]
    *_, again = preprocess(request, captioner=SizeCaptioner(), workers=1)
    *_, other = preprocess(request, captioner=SizeCaptioner("size 2"), workers=1)
    assert isinstance(again, Summary)
    assert isinstance(other, Summary)
    assert (again.unchanged, other.made) == (3, 3)


def test_a_caption_written_by_hand_is_kept_while_the_picture_is_made_anew(place: Place) -> None:
    (place.source / "2.txt").write_text("a fish")
    place.prepare(captions={"existing": "copy"})
    caption = place.destination / "00000-0-2.txt"
    caption.write_text("a blue fish")
    summary = place.prepare(captions={"existing": "copy"}, width=128)
    assert (summary.made, caption.read_text()) == (3, "a blue fish")
    assert place.results["2.png"].warnings[-1].startswith("'00000-0-2.txt' was there already")


def test_a_caption_corrected_by_hand_goes_along_when_numbers_move(place: Place) -> None:
    (place.source / "10.txt").write_text("a fsh")
    place.prepare(captions={"existing": "copy"})
    (place.destination / "00001-0-10.txt").write_text("a fish")
    write(place.source / "3.png", draw_noise((96, 80), 7))
    assert place.prepare(captions={"existing": "copy"}).left == ()
    assert [(name, (place.destination / name).read_text()) for name in place.names("*.txt")] == [
        ("00002-0-10.txt", "a fish")
    ]


def test_a_cancel_is_heard_between_two_captions(place: Place) -> None:
    said: list[str] = []

    class Slow(SizeCaptioner):
        def caption(self, pictures: Sequence[Image.Image], source: Path) -> list[str]:
            said.append(source.name)
            return super().caption(pictures, source)

    (summary,) = preprocess(place.request(flip=True), captioner=Slow(), cancel=lambda: bool(said), workers=1)
    assert isinstance(summary, Summary)
    assert (summary.cancelled, summary.files, said) == (True, 0, ["2.png"])


def test_a_caption_that_cannot_be_read_fails_its_picture(place: Place) -> None:
    (place.source / "2.txt").write_bytes(b"\xff\xfe\xff")
    assert place.prepare(captions={"existing": "prepend"}).failed == 1
    assert "is not UTF-8" in place.results["2.png"].reason


def test_a_plan_says_what_the_work_then_does(place: Place) -> None:
    (place.source / "bad.png").write_bytes(b"x")
    (place.source / "photo.heic").write_bytes(b"x")
    options = {"split": {"enabled": True, "threshold": 1}, "keep_size": True, "flip": True}
    foreseen = plan(place.request(**options))
    assert not place.destination.exists()
    place.prepare(**options)
    assert [asdict(picture)["outputs"] for picture in foreseen.pictures] == [
        asdict(picture)["outputs"] for picture in place.results.values()
    ]
    assert (foreseen.summary.made, foreseen.summary.failed, foreseen.summary.passed_over) == (3, 1, ("photo.heic",))
    assert plan(place.request(**options)).summary.unchanged == 3


def test_a_plan_warns_of_what_the_size_alone_tells(place: Place) -> None:
    options = {"width": 256, "checks": {"blur": 0, "duplicates": "off"}}
    foreseen = plan(place.request(**options)).pictures
    place.prepare(**options)
    assert any("is enlarged" in text for picture in foreseen for text in picture.warnings)
    assert [picture.warnings for picture in foreseen] == [picture.warnings for picture in place.results.values()]


def test_a_cancel_leaves_whole_pictures_and_a_next_run_goes_on(place: Place) -> None:
    done: list[str] = []

    def follow() -> Iterator[object]:
        for event in preprocess(place.request(), cancel=lambda: bool(done), workers=1):
            done.append("1")
            yield event

    first, summary = follow()
    assert isinstance(first, PictureDone)
    assert isinstance(summary, Summary)
    assert (summary.cancelled, summary.made) == (True, 1)
    assert place.names() == ["00000-0-2.png"]
    assert (place.prepare().made, place.prepare().unchanged) == (2, 3)


def test_neither_processes_nor_their_number_change_a_byte(place: Place, in_threads: pytest.MonkeyPatch) -> None:
    place.prepare(flip=True)
    in_threads.undo()
    before = {name: content for name, (content, _) in place.bytes().items() if name.endswith(".png")}
    other = Place(place.source, place.destination.with_name("other"))
    events = list(preprocess(other.request(flip=True), workers=2))
    assert [event.picture.source for event in events[:-1] if isinstance(event, PictureDone)] == list(place.results)
    assert {name: content for name, (content, _) in other.bytes().items() if name.endswith(".png")} == before


def test_long_names_of_many_bytes_are_cut_to_fit(place: Place) -> None:
    name = f"{'я' * 124}.png"
    write(place.source / name, draw_noise((64, 64), 9))
    place.prepare()
    (output,) = place.results[name].outputs
    assert output.name == f"00003-0-{'я' * 100}.png"
    assert (place.destination / output.name).exists()


def test_names_that_are_no_utf8_are_carried_through(place: Place) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write(place.source / name, draw_noise((64, 64), 9))
    place.prepare()
    assert place.prepare().unchanged == 4
    assert b"00002-0-caf\xe9.png" in [
        path.name.encode("utf-8", "surrogateescape") for path in place.destination.iterdir()
    ]


@pytest.mark.parametrize("destination", ["source", "source/../source", "link"])
def test_the_source_is_never_the_destination(place: Place, destination: str) -> None:
    (place.source.parent / "link").symlink_to(place.source)
    place.destination = place.source.parent / destination
    with pytest.raises(VocableError) as caught:
        place.prepare()
    assert caught.value.code == "preprocess.same"


def test_the_folder_for_debug_pictures_is_never_the_source(place: Place) -> None:
    place.source.rename(place.source.with_name("debug"))
    place.source, place.destination = place.source.with_name("debug"), place.source.parent
    with pytest.raises(VocableError, match="go into the folder that they are made from"):
        place.prepare()


def test_a_destination_of_another_source_is_refused(place: Place, tmp_path: Path) -> None:
    place.prepare()
    (tmp_path / "others").mkdir()
    write(tmp_path / "others" / "2.png", draw_noise((64, 64), 30))
    place.source = tmp_path / "others"
    with pytest.raises(VocableError, match="were prepared from") as caught:
        place.prepare()
    assert caught.value.code == "preprocess.record"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b'{"format": 9}'], ids=["empty", "bare", "deep", "other format"]
)
def test_a_damaged_record_is_told_and_nothing_is_written(place: Place, content: bytes) -> None:
    place.destination.mkdir()
    (place.destination / "preprocess.json").write_bytes(content)
    with pytest.raises(VocableError, match=r"preprocess\.json' cannot be used"):
        place.prepare()
    assert place.names("*") == ["preprocess.json"]


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"files": {"../source/2.png": "0" * 64}}, "names files elsewhere"),
        ({"files": {"debug/../2.png": "0" * 64}}, "names files elsewhere"),
        ({"files": {"2\0.png": "0" * 64}}, "names files elsewhere"),
        ({"files": {"..": "0" * 64}}, "names files elsewhere"),
        ({"fingerprint": ""}, "fingerprint of a picture is none"),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(place: Place, spoilt: dict[str, object], reason: str) -> None:
    place.destination.mkdir()
    picture = {"source": "2.png", "state": "made", "fingerprint": "0" * 112, **spoilt}
    record = {"format": 1, "source": str(place.source), "options": {}, "pictures": [picture]}
    (place.destination / "preprocess.json").write_text(json.dumps(record))
    with pytest.raises(VocableError, match=reason):
        place.prepare()


def test_two_at_once_into_one_destination_are_refused(place: Place) -> None:
    running = preprocess(place.request(), workers=1)
    next(running)
    with pytest.raises(VocableError) as caught:
        place.prepare()
    running.close()  # type: ignore[attr-defined]
    assert caught.value.code == "preprocess.busy"


def test_names_of_folders_are_looked_up_among_the_datasets(place: Place, tmp_path: Path) -> None:
    request = PreprocessRequest(source="source", destination="fresh", options=place.request().options)
    list(preprocess(request, workers=1, datasets=[tmp_path]))
    assert len(list((tmp_path / "fresh").glob("*.png"))) == 3
    with pytest.raises(VocableError, match="neither a whole path"):
        list(preprocess(request.model_copy(update={"destination": "../x"}), datasets=[tmp_path]))
