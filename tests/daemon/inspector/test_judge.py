"""The inspector's process, good and faulty ones."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.inspector.judge import judge
from engine.embedding.read import read_embedding
from engine.errors import VocableError
from tests.daemon.words import WIDTH, picture, word_file

PREAMBLE = "import os, sys, time, signal\nsys.stdin.buffer.read()\n"


def faulty(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", PREAMBLE + code)


async def test_a_good_file_comes_back_as_numbers_and_canonical_bytes() -> None:
    data = word_file(0.25, vectors=3)
    judgement = await judge(data, "--help")
    assert judgement.verdict.readable
    assert (judgement.verdict.vectors, judgement.verdict.width, judgement.verdict.step) == (3, WIDTH, 7)
    assert (read_embedding(judgement.canonical, "fox").vectors == 0.25).all()


async def test_a_bad_file_comes_back_with_its_error() -> None:
    assert (await judge(picture(), "fox")).verdict.code == "embedding.absent"
    assert (await judge(b"\0" * 1000, "fox")).verdict.code == "embedding.unreadable"
    assert (await judge(b"", "fox")).verdict.code == "embedding.unreadable"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "died (SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "died (SIGSEGV)"),
        ("raise MemoryError", "failed (exit code 1)"),
        ("print('garbage')", "makes no sense"),
        ("pass", "makes no sense"),
        ("sys.stdout.buffer.write(b'\\0\\0\\0\\2{}')", "makes no sense"),
        ("sys.stdout.buffer.write(b'\\0\\0\\0\\2{}' * 2)", "makes no sense"),
        ("while True: sys.stdout.buffer.write(bytes(1 << 20))", "died (SIGKILL)"),
    ],
)
async def test_an_inspector_that_fails_costs_its_file_only(code: str, words: str) -> None:
    with pytest.raises(VocableError) as caught:
        await judge(word_file(), "fox", command=faulty(code))
    assert caught.value.code == "inspector.lost"
    assert words in caught.value.title


async def test_an_inspector_that_takes_too_long_is_killed() -> None:
    with pytest.raises(VocableError, match=r"longer than 0\.3 s"):
        await judge(word_file(), "fox", wall_s=0.3, command=faulty("time.sleep(600)"))


async def test_an_inspector_that_reads_nothing_does_not_block() -> None:
    with pytest.raises(VocableError, match="makes no sense"):
        await judge(bytes(32 << 20), "fox", command=(sys.executable, "-c", "pass"))


async def test_without_a_process_to_be_had_the_file_is_not_judged() -> None:
    with pytest.raises(VocableError) as caught:
        await judge(b"", "fox", command=("/nowhere/python",))
    assert caught.value.code == "inspector.start"


CONFINED = """
import os, sys
from daemon.inspector.main import confine
confine()
{attempt}
"""


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("bytearray(2 << 30)", "MemoryError"),
        ("os.write(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), b'x')", "File too large"),
        ("[open('/dev/null') for _ in range(64)]", "Too many open files"),
    ],
)
def test_what_reading_does_not_need_is_taken_away(tmp_path: Path, attempt: str, error: str) -> None:
    arguments = [sys.executable, "-c", CONFINED.format(attempt=attempt), str(tmp_path / "written")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert error in result.stderr


def test_an_inspector_dies_with_its_supervisor() -> None:
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-I', '-m', 'daemon.inspector.main', '--parent', str(os.getpid()),"
        " '--stem=x'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdin is not None
        child = os.pidfd_open(int(supervisor.stdout.readline()))
        supervisor.stdin.close()
        gone, _, _ = select.select([child], [], [], 5)
        os.close(child)
    assert gone
