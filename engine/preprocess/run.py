"""Prepares a folder of pictures: the one place where sources, processes, captions and the record come together.

Called by the job in the worker. Nothing is left half done by a cancel or a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.preprocess.request import PreprocessRequest
from engine.preprocess.results import PictureDone, Summary

if TYPE_CHECKING:
    from PIL import Image


class Captioner(Protocol):
    """Words what pictures show."""

    identity: str
    """Changes with everything that changes a caption: kind, weights' hash. The request's settings need not be in it."""

    def caption(self, pictures: Sequence[Image.Image], source: Path) -> list[str]:
        """One caption for each picture (mode RGB or RGBA, flipped copies among them) made of the file `source`.

        Raises:
            VocableError: captions cannot be made at all; it ends the job.
        """


def preprocess(
    request: PreprocessRequest,
    *,
    captioner: Captioner | None = None,
    cancel: Callable[[], bool] = lambda: False,
    workers: int | None = None,
    datasets: Sequence[Path] = (),
) -> Iterator[PictureDone | Summary]:
    """Prepare the pictures of `request`; yields a PictureDone for each and a Summary at the end.

    What an earlier call made of the same bytes with the same options is left as it is. A picture that fails is named
    and passed over. Closing the generator is like a cancel.

    Args:
        captioner: None where `captions.make` is "none".
        cancel: asked several times a second; True ends the work with a Summary that says so.
        workers: processes that decode and cut; as many as there are cores when absent.
        datasets: folders in which names of folders are looked up; a new destination goes into the first.

    Raises:
        VocableError: `dataset.*` for the source, `preprocess.{same,destination,record,busy}`, `disk.*`, and what the
            captioner raises.
    """
    raise NotImplementedError
