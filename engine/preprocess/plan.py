"""The dry run: what preparing a folder would do, file by file, with nothing written.

Called by the job in the worker. Geometry and ownership are those of the work itself; only headers are read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path

from engine.errors import VocableError
from engine.preprocess.crew import Crew
from engine.preprocess.folders import Folders, find_folders
from engine.preprocess.geometry import Cut, enlargement, outline, warn_of_size
from engine.preprocess.prepare import Facts
from engine.preprocess.record import Entry, Record, read_record
from engine.preprocess.request import PreprocessOptions, PreprocessRequest
from engine.preprocess.results import Output, PictureResult, Plan, Summary
from engine.preprocess.run import CANCEL_POLL_S, made_with
from engine.preprocess.texts import digits_for, name_stem, read_existing

_AHEAD = 4


def plan(
    request: PreprocessRequest,
    *,
    captioner: str = "",
    cancel: Callable[[], bool] = lambda: False,
    datasets: Sequence[Path] = (),
) -> Plan:
    """Look at every source picture's size and say what `run.preprocess` would do.

    Captions, duplicates, blur and damage behind a picture's header are not known before the work is done. Names are
    those without captions in them.

    Args:
        captioner: `Captioner.identity` of the captioner that would be used; decides whether earlier work still holds.
        cancel: asked several times a second; True ends the plan early, and its summary says so.

    Raises:
        VocableError: as `run.preprocess`.
    """
    folders = find_folders(request, datasets)
    record = read_record(folders.destination, folders.source)
    made = made_with(request.options, captioner)
    with Crew(request.options, 1) as crew:
        measured = _measure_all(crew, folders.pictures, cancel)
        results = tuple(
            _foresee(path, number, facts, request.options, record, made, digits_for(len(folders.pictures)))
            for number, (path, facts) in enumerate(measured)
        )
    return Plan(
        str(folders.source), str(folders.destination), results, _sum_up(folders, results, record, request.options)
    )


def _measure_all(
    crew: Crew, pictures: Sequence[Path], cancel: Callable[[], bool]
) -> Iterator[tuple[Path, Facts | VocableError]]:
    waiting = deque(pictures)
    under_way = deque(
        (path, crew.measure(path)) for path in (waiting.popleft() for _ in range(min(_AHEAD, len(waiting))))
    )
    while under_way and not cancel():
        path, coming = under_way[0]
        if not wait([coming], CANCEL_POLL_S).done:
            continue
        under_way.popleft()
        if waiting:
            under_way.append((waiting[0], crew.measure(waiting.popleft())))
        error = coming.exception()
        if error is not None and not isinstance(error, VocableError):
            raise error
        yield path, error or coming.result()


def _foresee(
    path: Path,
    number: int,
    facts: Facts | VocableError,
    options: PreprocessOptions,
    record: Record,
    made: str,
    digits: int,
) -> PictureResult:
    try:
        if isinstance(facts, VocableError):
            raise facts
        text = read_existing(path) if options.captions.existing != "ignore" else ""
        old = record.entries.get(path.name)
        if old and _holds(old, facts, made, text, number, record):
            return PictureResult(path.name, "unchanged", old.outputs, old.notes, old.warnings)
        cuts = outline(facts.width, facts.height, options)
        outputs = _name_outputs(path, number, cuts, options, digits)
        taken = [output.name for output in outputs if record.standing(output.name, "") == "foreign"]
        # Equal bytes would be taken as they are; that is not known before they are made.
        warnings = [f"'{name}' is there already, and is not known to be made here." for name in taken]
        enlarged = max(enlargement(cut, facts.width, facts.height) for cut in cuts)
        warnings += warn_of_size(facts.width, facts.height, enlarged, options)
        return PictureResult(path.name, "made", outputs, warnings=tuple(warnings))
    except VocableError as error:
        if error.code.startswith(("dataset.", "preprocess.")):
            return PictureResult(path.name, "failed", reason=error.title)
        raise


def _holds(old: Entry, facts: Facts, made: str, text: str, number: int, record: Record) -> bool:
    same = (old.state, old.sha256, old.made_with, old.text, old.number) == ("made", facts.sha256, made, text, number)
    return same and all(record.standing(name, sha256) in ("ours", "foreign") for name, sha256 in old.files.items())


def _name_outputs(
    path: Path, number: int, cuts: Sequence[Cut], options: PreprocessOptions, digits: int
) -> tuple[Output, ...]:
    outputs: list[Output] = []
    for cut in cuts:
        for flipped in (False, True) if options.flip else (False,):
            name = f"{name_stem(number, digits, len(outputs), path)}.png"
            outputs.append(Output(name, cut.step, cut.width, cut.height, flipped))
    return tuple(outputs)


def _sum_up(folders: Folders, results: Sequence[PictureResult], record: Record, options: PreprocessOptions) -> Summary:
    states = Counter(result.state for result in results)
    present = {picture.name for picture in folders.pictures}
    gone = [name for source in sorted(record.entries.keys() - present) for name in record.files_of(source)]
    return Summary(
        total=len(folders.pictures),
        made=states["made"],
        unchanged=states["unchanged"],
        duplicates=0,
        failed=states["failed"],
        files=sum(len(result.outputs) for result in results),
        cancelled=len(results) < len(folders.pictures),
        left=() if options.remove_left else tuple(gone),
        removed=tuple(gone) if options.remove_left else (),
        passed_over=folders.passed_over,
    )
