"""The fork server and its children, good and faulty ones."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from daemon.inspector.facts import WordFacts
from daemon.inspector.inspector import Inspector
from daemon.inspector.judge import Judgement
from daemon.inspector.judge import judge as judge_as
from daemon.words import EMBEDDINGS
from engine.embedding.read import read_embedding
from engine.errors import VocableError
from tests.daemon.words import WIDTH, picture, word_file

PATIENCE_S = 30.0
"""Only a hang takes this long."""

FAULTY = """
import os, signal, socket, sys, time
from daemon.inspector import child, main
answer = child.answer
def fail(connection):
    with connection.makefile("rb") as stream:
        header, parts = child.read_frame(stream)
    if parts == [b"good"]:
        connection.sendall(b"\\0\\0\\0\\x0c" + b'{"parts":[]}')
        return 0
    {code}
    return 0
child.answer = fail
main.main()
"""

Open = Callable[..., Inspector]


@pytest.fixture
async def open_inspector() -> AsyncIterator[Open]:
    opened: list[Inspector] = []

    def begin(code: str = "", **options: float) -> Inspector:
        command = (sys.executable, "-c", FAULTY.replace("{code}", code))
        chosen = {"command": command} if code else {}
        opened.append(Inspector(**chosen, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield begin
    for inspector in opened:
        await inspector.close()


async def judge(inspector: Inspector, data: bytes) -> Judgement[WordFacts]:
    return await judge_as(inspector, EMBEDDINGS.question, EMBEDDINGS.facts, data)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the kernel tells nobody about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_a_good_file_comes_back_as_facts_and_canonical_bytes(open_inspector: Open) -> None:
    judgement = await judge(open_inspector(), word_file(0.25, vectors=3))
    (word,) = judgement.verdict.contents
    assert judgement.verdict.readable
    assert (word.name, word.vectors, word.width, word.step) == ("", 3, WIDTH, 7)
    assert (read_embedding(judgement.canonical[0], "fox").vectors == 0.25).all()


async def test_a_bad_file_comes_back_with_its_error(open_inspector: Open) -> None:
    inspector = open_inspector()
    assert (await judge(inspector, picture())).verdict.code == "embedding.absent"
    assert (await judge(inspector, b"\0" * 1000)).verdict.code == "embedding.unreadable"
    assert (await judge(inspector, b"")).verdict.code == "embedding.unreadable"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "died (SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "died (SIGSEGV)"),
        ("raise RuntimeError", "failed (exit code 1)"),
        ("hold = [bytearray(1 << 24) for _ in range(100)]", "failed (exit code 1)"),
        ("connection.sendall(b'garbage')", "makes no sense"),
        ("pass", "makes no sense"),
        ("connection.sendall(b'\\\\0\\\\0\\\\0\\\\x02{}')", "makes no sense"),
        ("connection.sendall(b'\\\\0\\\\0\\\\0\\\\x0d' + b'{\"parts\":[9]}')", "makes no sense"),
        ("connection.sendall(b'\\\\0\\\\0\\\\0\\\\x0c' + b'{\"parts\":[]}'); os._exit(3)", "exit code 3"),
        ("while True: connection.sendall(bytes(1 << 20))", "answered more than"),
        ("os.write(1, bytes(1 << 20)); os.write(2, bytes(1 << 20))", "makes no sense"),
    ],
)
async def test_a_child_that_fails_costs_its_own_question_only(open_inspector: Open, code: str, words: str) -> None:
    inspector = open_inspector(code.replace("\\\\", "\\"))
    with pytest.raises(VocableError) as caught:
        await inspector.ask({"do": "read"}, [b"bad"])
    assert caught.value.code == "inspector.lost"
    assert words in caught.value.title
    server = inspector.pid
    assert await inspector.ask({"do": "read"}, [b"good"]) == ({}, [])
    assert inspector.pid == server


@pytest.mark.parametrize("code", ["time.sleep(600)", "connection.close(); time.sleep(600)", "os.kill(os.getpid(), 19)"])
async def test_a_child_that_takes_too_long_is_killed(open_inspector: Open, code: str) -> None:
    inspector = open_inspector(code, wall_s=0.2)
    with pytest.raises(VocableError, match=r"longer than 0\.2 s"):
        await inspector.ask({"do": "read"}, [b"bad"])
    assert inspector.pid is not None
    assert children_of(inspector.pid) == []


async def test_a_child_that_reads_nothing_does_not_block(open_inspector: Open) -> None:
    deaf = FAULTY.replace('with connection.makefile("rb") as stream:', "os._exit(0)").partition("header, parts")[0]
    inspector = Inspector(command=(sys.executable, "-c", deaf + "\nchild.answer = fail\nmain.main()"))
    with pytest.raises(VocableError, match="makes no sense"):
        await inspector.ask({"do": "read"}, [bytes(32 << 20)])
    await inspector.close()


async def test_a_question_that_is_broken_off_leaves_no_child(open_inspector: Open) -> None:
    inspector = open_inspector("time.sleep(600)")
    await inspector.ask({"do": "read"}, [b"good"])
    asking = asyncio.create_task(inspector.ask({"do": "read"}, [b"bad"]))
    server = inspector.pid
    assert server is not None
    await until(lambda: bool(children_of(server)))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: not children_of(server))


async def test_a_fork_server_that_was_killed_is_replaced(open_inspector: Open) -> None:
    inspector = open_inspector()
    await judge(inspector, word_file())
    first = inspector.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert (await judge(inspector, word_file())).verdict.readable
    assert inspector.pid not in (None, first)


async def test_a_fork_server_that_hangs_is_replaced(open_inspector: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = open_inspector("pass")
    await inspector.ask({"do": "read"}, [b"good"])
    first = inspector.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    with monkeypatch.context() as patch:  # only the one that hangs has so little time
        patch.setattr("daemon.inspector.inspector.GRACE_S", 0.2)
        patch.setattr(inspector, "_wall_s", 0.2)
        with pytest.raises(VocableError) as caught:
            await inspector.ask({"do": "read"}, [b"good"])
    assert caught.value.code == "inspector.lost"
    assert await inspector.ask({"do": "read"}, [b"good"]) == ({}, [])


@pytest.mark.parametrize(
    "command", [("/nowhere/python",), (sys.executable, "-c", "pass"), (sys.executable, "-c", "1/0")]
)
async def test_without_a_process_to_be_had_the_file_is_not_judged(command: tuple[str, ...]) -> None:
    inspector = Inspector(command=command)
    with pytest.raises(VocableError) as caught:
        await judge(inspector, b"")
    await inspector.close()
    assert caught.value.code == "inspector.start"


async def test_an_idle_inspector_holds_no_process(open_inspector: Open) -> None:
    inspector = open_inspector(idle_s=0.05)
    await judge(inspector, word_file())
    await until(lambda: inspector.pid is None)
    assert (await judge(inspector, word_file())).verdict.readable


async def test_nothing_is_left_behind(open_inspector: Open) -> None:
    before = len(os.listdir("/proc/self/fd")), children_of(os.getpid())
    inspector = Inspector()
    answers = [judge(inspector, word_file(number / 100)) for number in range(20)]
    await asyncio.gather(*answers, judge(inspector, b"bad"))
    assert inspector.pid is not None
    assert children_of(inspector.pid) == []
    await inspector.close()
    await until(lambda: (len(os.listdir("/proc/self/fd")), children_of(os.getpid())) == before)


CONFINED = """
import os, socket, subprocess, sys
from daemon.inspector.child import confine
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


async def test_a_child_is_confined_and_has_nothing_but_its_question(open_inspector: Open) -> None:
    code = (
        "status = open('/proc/self/status').read(); import json, resource; "
        "told = json.dumps({'parts': [], 'fds': sorted(map(int, os.listdir('/proc/self/fd')))[:-1], "
        "'privs': status.split('NoNewPrivs:')[1].split()[0], 'limit': resource.getrlimit(resource.RLIMIT_AS)[0], "
        "'score': open('/proc/self/oom_score_adj').read()}).encode(); "
        "connection.sendall(len(told).to_bytes(4, 'big') + told)"
    )
    reply, _ = await open_inspector(code).ask({"do": "read"}, [b"bad"])
    assert reply == {"fds": [0, 1, 2], "privs": "1", "limit": 1 << 30, "score": "500\n"}


@pytest.mark.parametrize("victim", ["supervisor", "server"])
def test_server_and_children_die_with_who_started_them(victim: str) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from daemon.inspector.inspector import Inspector\n"
        "async def main():\n"
        "    inspector = Inspector(command=(sys.executable, '-c', sys.argv[1]))\n"
        "    await inspector.ask({'do': 'read'}, [b'good'])\n"
        "    asking = asyncio.create_task(inspector.ask({'do': 'read'}, [b'bad']))\n"
        "    path = f'/proc/{inspector.pid}/task/{inspector.pid}/children'\n"
        "    while not open(path).read(): await asyncio.sleep(0.01)\n"
        "    print(inspector.pid, open(path).read(), flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(main())\n"
    )
    faulty = FAULTY.replace("{code}", "time.sleep(600)")
    arguments = [sys.executable, "-c", code, faulty]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        server, child = map(int, supervisor.stdout.readline().split())
        watched = [os.pidfd_open(child), *([os.pidfd_open(server)] if victim == "supervisor" else [])]
        os.kill(supervisor.pid if victim == "supervisor" else server, signal.SIGKILL)
        for handle in watched:
            assert select.select([handle], [], [], 10)[0]
            os.close(handle)
        supervisor.kill()
