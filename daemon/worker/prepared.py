"""What is told of pictures that were prepared: the engine's results as the reply of a job. Used by the preparer.

The invariant: all names and sentences are escaped, and however many pictures there are, a reply stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from daemon.protocol.preprocess import MAX_CAPTION, MAX_LISTED, MAX_OUTPUTS, OutputView, PictureView, PreprocessResult
from engine.preprocess.folders import find_folders
from engine.preprocess.record import RECORD
from engine.preprocess.request import PreprocessRequest
from engine.preprocess.results import PictureDone, PictureResult, Plan, Summary
from engine.text import escape


class Tally:
    """Takes the items of `engine.preprocess.run.preprocess` as they come."""

    def __init__(self, request: PreprocessRequest, datasets: Sequence[Path], device: str) -> None:
        self._destination = find_folders(request, datasets).destination
        self._device = device
        self._wants_captions = request.options.captions.make != "none"
        self._pictures: list[PictureView] = []
        self._uncaptioned = 0
        self._summary: Summary | None = None

    def add(self, item: PictureDone | Summary) -> None:
        if isinstance(item, Summary):
            self._summary = item
            return
        picture = item.picture
        if self._wants_captions and picture.state == "made":
            self._uncaptioned += sum(not output.caption for output in picture.outputs)
        if len(self._pictures) < MAX_LISTED and (picture.reason or picture.warnings):
            self._pictures.append(_describe(picture))

    def result(self) -> dict[str, Any]:
        assert self._summary is not None
        return _reply(
            self._summary,
            self._pictures,
            destination=str(self._destination),
            record=str(self._destination / RECORD),
            dry_run=False,
            device=self._device,
            uncaptioned=self._uncaptioned,
        )


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The reply of a dry run."""
    pictures = [_describe(picture) for picture in plan.pictures[:MAX_LISTED]]
    return _reply(
        plan.summary,
        pictures,
        destination=plan.destination,
        record="",
        dry_run=True,
        device="",
        uncaptioned=0,
    )


def _reply(
    summary: Summary, pictures: list[PictureView], *, destination: str, record: str, **more: Any
) -> dict[str, Any]:
    result = PreprocessResult(
        destination=escape(destination, 5000),
        record=escape(record, 5000),
        total=summary.total,
        made=summary.made,
        unchanged=summary.unchanged,
        duplicates=summary.duplicates,
        failed=summary.failed,
        files=summary.files,
        left=_escape_all(summary.left),
        removed=_escape_all(summary.removed),
        passed_over=_escape_all(summary.passed_over),
        pictures=pictures,
        **more,
    )
    return result.model_dump(mode="json")


def _describe(picture: PictureResult) -> PictureView:
    return PictureView(
        source=escape(picture.source),
        state=picture.state,
        outputs=[
            OutputView(
                name=escape(output.name),
                step=output.step,
                width=output.width,
                height=output.height,
                flipped=output.flipped,
                caption=escape(output.caption, MAX_CAPTION),
            )
            for output in picture.outputs[:MAX_OUTPUTS]
        ],
        notes=_escape_all(picture.notes),
        warnings=_escape_all(picture.warnings),
        reason=escape(picture.reason),
    )


def _escape_all(texts: Iterable[str]) -> list[str]:
    return [escape(text) for _, text in zip(range(MAX_LISTED), texts, strict=False)]
