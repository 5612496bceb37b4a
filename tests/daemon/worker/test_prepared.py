"""Replies about prepared pictures: escaped, and small however many pictures there are."""

from __future__ import annotations

from pathlib import Path

from daemon.worker.prepared import Tally, describe_plan
from daemon.worker.wire import encode
from engine.models.starter.portraits import write_pictures
from engine.preprocess.request import PreprocessRequest
from engine.preprocess.results import Output, PictureDone, PictureResult, Plan, Summary


def summary(total: int) -> Summary:
    return Summary(total, total, 0, 0, 0, total, False, (), (), ())


def test_names_and_captions_are_escaped() -> None:
    outputs = (Output("a\x1b.png", "resize", 8, 8, caption="\u202eevil"),)
    picture = PictureResult("\ud800.png", "made", outputs, reason="\x07")
    reply = describe_plan(Plan("/source", "/destination\n", (picture,), summary(1)))
    shown = reply["pictures"][0]
    assert (shown["source"], shown["reason"], reply["destination"]) == ("\\ud800.png", "\\x07", "/destination\\x0a")
    assert (shown["outputs"][0]["name"], shown["outputs"][0]["caption"]) == ("a\\x1b.png", "\\u202eevil")


def test_a_plan_of_a_hundred_thousand_pictures_fits_into_a_message() -> None:
    outputs = tuple(Output("n" * 250, "split", 512, 512, caption="c" * 5000) for _ in range(80))
    picture = PictureResult("p.png", "made", outputs, warnings=("w" * 100,))
    encode({"result": describe_plan(Plan("/s", "/d", (picture,) * 100_000, summary(100_000)))})


def test_only_pictures_with_something_to_tell_are_listed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "raw", 1, seed=0)
    request = PreprocessRequest.model_validate(
        {"source": "raw", "destination": "ready", "options": {"captions": {"make": "starter"}}}
    )
    tally = Tally(request, [tmp_path], "")
    tally.add(PictureDone(1, 3, PictureResult("1.png", "made", (Output("1.png", "resize", 8, 8, caption="a"),))))
    tally.add(
        PictureDone(2, 3, PictureResult("2.png", "made", (Output("2.png", "resize", 8, 8),), warnings=("Blurred.",)))
    )
    tally.add(PictureDone(3, 3, PictureResult("3.png", "failed", reason="It is damaged.")))
    tally.add(summary(3))
    reply = tally.result()
    assert [picture["source"] for picture in reply["pictures"]] == ["2.png", "3.png"]
    assert (reply["uncaptioned"], reply["record"]) == (1, str(tmp_path / "ready" / "preprocess.json"))


def test_the_longest_path_is_told_as_a_whole() -> None:
    destination = "/folder" * 500
    assert describe_plan(Plan("/source", destination, (), summary(0)))["destination"] == destination
