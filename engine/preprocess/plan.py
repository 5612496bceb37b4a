"""The dry run: what preparing a folder would do, file by file, with nothing written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.preprocess.request import PreprocessRequest
from engine.preprocess.results import Plan


def plan(
    request: PreprocessRequest,
    *,
    captioner: str = "",
    cancel: Callable[[], bool] = lambda: False,
    datasets: Sequence[Path] = (),
) -> Plan:
    """Look at every source picture's size and say what `run.preprocess` would do.

    Captions, duplicates and blur are not known before the work is done. Names are those without captions in them.

    Args:
        captioner: `Captioner.identity` of the captioner that would be used; decides whether earlier work still holds.
        cancel: asked between pictures; True ends the plan early.

    Raises:
        VocableError: as `run.preprocess`.
    """
    raise NotImplementedError
