"""Prepares a folder of pictures: the one place where sources, processes, captions and the record come together.

Called by the job in the worker. Nothing is left half done by a cancel or a kill: a second call goes on where the first
ended, and one over unchanged sources changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path

from engine.errors import VocableError
from engine.files import make_folder, write_error
from engine.preprocess.crew import Crew
from engine.preprocess.folders import Folders, find_folders
from engine.preprocess.prepare import PREPARE_RULE
from engine.preprocess.record import Record, read_record
from engine.preprocess.request import PreprocessOptions, PreprocessRequest, hash_options
from engine.preprocess.results import PictureDone, PictureResult, Summary
from engine.preprocess.settle import Captioner as Captioner
from engine.preprocess.settle import Pending, Settler
from engine.preprocess.texts import digits_for

_AHEAD = 2
"""Pictures under way for each process: enough that none waits, few enough that memory stays flat."""

CANCEL_POLL_S = 0.1


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
        workers: processes that decode and cut; as many as there are cores when absent. They end with the thread that
            runs this generator's first step, or with the generator.
        datasets: folders in which names of folders are looked up; a new destination goes into the first.

    Raises:
        VocableError: `dataset.*` for the source, `preprocess.{same,destination,record,busy}`, `disk.*`, and what the
            captioner raises.
    """
    folders = find_folders(request, datasets)
    make_folder(folders.destination)
    with _locked(folders.destination):
        record = read_record(folders.destination, folders.source)
        if not record.complete:
            record.remove_strays()
            record.fold(request.options.model_dump())
        try:
            yield from _work(request.options, folders, record, captioner, cancel, workers or count_cores())
        finally:
            if not record.complete:
                record.fold(request.options.model_dump())


def made_with(options: PreprocessOptions, captioner: str) -> str:
    """What, beside a picture's own bytes and number, decides what is made of it."""
    return f"{PREPARE_RULE}-{hash_options(options, captioner)}"


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _work(
    options: PreprocessOptions,
    folders: Folders,
    record: Record,
    captioner: Captioner | None,
    cancel: Callable[[], bool],
    workers: int,
) -> Iterator[PictureDone | Summary]:
    total = len(folders.pictures)
    results: list[PictureResult] = []
    with Crew(options, min(workers, total)) as crew:
        settler = Settler(
            options,
            record,
            crew,
            captioner,
            cancel,
            made_with=made_with(options, captioner.identity if captioner else ""),
            digits=digits_for(total),
        )
        for result in _settle_all(settler, folders.pictures, cancel, _AHEAD * workers):
            results.append(result)
            yield PictureDone(len(results), total, result)
    left, removed = _clear(record, folders, options, cancelled=len(results) < total)
    yield _sum_up(folders, results, left, removed)


def _settle_all(
    settler: Settler, pictures: Sequence[Path], cancel: Callable[[], bool], ahead: int
) -> Iterator[PictureResult]:
    """Results in the order of the pictures; ends early when cancelled."""
    under_way: deque[Pending] = deque()
    waiting = deque(enumerate(pictures))
    while waiting or under_way:
        while waiting and len(under_way) < ahead:
            if cancel():
                return
            number, picture = waiting.popleft()
            under_way.append(settler.begin(picture, number))
        result = None
        while result is None:
            if not _await(under_way[0], cancel):
                return
            result = settler.finish(under_way[0])
        under_way.popleft()
        yield result


def _await(pending: Pending, cancel: Callable[[], bool]) -> bool:
    """Wait until a picture is prepared; False when cancelled."""
    while not cancel():
        if pending.coming is None or wait([pending.coming], CANCEL_POLL_S).done:
            return True
    return False


def _clear(
    record: Record, folders: Folders, options: PreprocessOptions, *, cancelled: bool
) -> tuple[list[str], list[str]]:
    """Remove what newer files stand for, and, when asked, what nothing stands for; returns what is left and removed."""
    record.remove_strays()
    left: list[str] = list(record.changed)
    removed: list[str] = []
    present = {picture.name for picture in folders.pictures}
    for source in sorted(record.entries.keys() - present):
        if options.remove_left and not cancelled:
            gone, kept = record.remove_entry(source)
            removed += gone
            left += kept
        else:
            left += record.files_of(source)
    return left, removed


def _sum_up(folders: Folders, results: list[PictureResult], left: list[str], removed: list[str]) -> Summary:
    states = Counter(result.state for result in results)
    return Summary(
        total=len(folders.pictures),
        made=states["made"],
        unchanged=states["unchanged"],
        duplicates=states["duplicate"],
        failed=states["failed"],
        files=sum(len(result.outputs) for result in results),
        cancelled=len(results) < len(folders.pictures),
        left=tuple(left),
        removed=tuple(removed),
        passed_over=folders.passed_over,
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second call out of a destination. Raises VocableError `preprocess.busy`."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            title = f"Pictures are being prepared into '{folder}' already."
            raise VocableError("preprocess.busy", title, "Wait until that is done.") from None
        yield
    finally:
        os.close(handle)
