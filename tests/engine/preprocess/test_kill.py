"""A kill at any moment: whole files only, no process left behind, and the next run finishes the work."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engine.preprocess.crew import Crew
from engine.preprocess.record import read_record
from engine.preprocess.request import PreprocessOptions, PreprocessRequest
from engine.preprocess.results import Summary
from engine.preprocess.run import preprocess
from tests.engine.preprocess.drawing import draw_noise, write

_PROGRAM = """
import sys
from engine.preprocess.request import PreprocessOptions, PreprocessRequest
from engine.preprocess.run import preprocess
request = PreprocessRequest.model_validate_json(sys.argv[1])
for event in preprocess(request, workers=2):
    print("done", flush=True)
"""
PICTURES = 12


@pytest.fixture
def request_(tmp_path: Path) -> PreprocessRequest:
    (tmp_path / "source").mkdir()
    for number in range(PICTURES):
        write(tmp_path / "source" / f"{number}.png", draw_noise((128, 128), number))
    options = PreprocessOptions(width=128, height=128, flip=True)
    return PreprocessRequest(source=str(tmp_path / "source"), destination=str(tmp_path / "out"), options=options)


def descendants(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


@contextlib.contextmanager
def watched(processes: list[int]) -> Iterator[list[int]]:
    """File descriptors that become readable when the processes end."""
    handles = [os.pidfd_open(process) for process in processes]
    yield handles
    for handle in handles:
        os.close(handle)


@pytest.mark.parametrize("after", [1, 6])
def test_a_kill_leaves_whole_files_and_no_process_and_the_next_run_goes_on(
    request_: PreprocessRequest, in_threads: pytest.MonkeyPatch, after: int
) -> None:
    command = [sys.executable, "-c", _PROGRAM, request_.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(after):
            assert process.stdout.readline() == "done\n"
        children = descendants(process.pid)
        with watched(children) as handles:
            assert len(handles) == 2
            os.kill(children[0], signal.SIGSTOP)  # as if it hung in a decoder: it will not notice by itself
            process.send_signal(signal.SIGKILL)
            process.wait()
            for handle in handles:
                assert select.select([handle], [], [], 10)[0], "a process outlived its parent"
    destination = Path(request_.destination)
    whole = sorted(destination.glob("*.png"))
    for path in whole:
        with Image.open(path) as made:
            made.load()
    record = read_record(destination, Path(request_.source))
    assert {path.name for path in whole} <= {name for entry in record.entries.values() for name in entry.files}
    *_, summary = preprocess(request_, workers=2)
    assert isinstance(summary, Summary)
    assert (summary.made + summary.unchanged, summary.failed) == (PICTURES, 0)
    assert summary.unchanged >= after - 1
    assert len(list(destination.glob("*.png"))) == 2 * PICTURES
    assert not (destination / ".preprocess.journal").exists()


def test_a_kill_between_two_options_leaves_nothing_foreign(
    request_: PreprocessRequest, in_threads: pytest.MonkeyPatch
) -> None:
    """Files of the first options, half of them replaced by those of the second: all are ours, none is left over."""
    list(preprocess(request_, workers=2))
    other = request_.model_copy(update={"options": request_.options.model_copy(update={"flip": False, "width": 96})})
    command = [sys.executable, "-c", _PROGRAM, other.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    *_, summary = preprocess(other, workers=2)
    assert isinstance(summary, Summary)
    assert (summary.failed, summary.left) == (0, ())
    assert len(list(Path(other.destination).glob("*.png"))) == PICTURES


def test_closing_kills_a_process_that_hangs(request_: PreprocessRequest) -> None:
    picture = Path(request_.source) / "1.png"
    crew = Crew(request_.options, 1, time_limit_s=10)
    crew.measure(picture).result()
    (child,) = crew._children
    os.kill(child._process.pid, signal.SIGSTOP)
    hanging = crew.prepare(picture)
    while not hanging.running():
        os.sched_yield()
    with watched([child._process.pid]) as handles:
        crew.close()
        assert select.select(handles, [], [], 0)[0] == handles
    assert "made its decoder crash" in str(hanging.exception())
