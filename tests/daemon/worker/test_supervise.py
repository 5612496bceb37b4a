from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading

import pytest

from daemon.worker.exits import describe_exit
from daemon.worker.supervise import Limits, Worker
from tests.daemon.worker.conftest import PATIENCE_S, Hire

SHORT = Limits(silence_s=1.0, dump_s=0.5, term_s=0.5, kill_s=5.0, drain_s=1.0)


async def test_messages_go_both_ways_and_the_end_is_as_asked(hire: Hire) -> None:
    worker = await hire(settings={"device": "abacus"})
    assert (await worker.message("ready"))["device"] == "abacus"
    worker.worker.send({"do": "echo", "text": "ähm \x1b"})
    assert (await worker.message("echo"))["text"] == "ähm \x1b"
    await worker.worker.stop(timeout_s=PATIENCE_S)
    assert [(end.kind, end.code) for end in worker.exits] == [("asked", 0)]
    assert worker.worker.pid is None


async def test_every_message_sent_before_the_end_is_delivered_before_it(hire: Hire) -> None:
    worker = await hire()
    worker.worker.send({"do": "flood", "count": 3000})
    worker.worker.send({"do": "exit"})
    assert (await worker.end()).kind == "exit"
    assert [message["n"] for message in worker.messages if message["type"] == "fact"] == list(range(3000))


@pytest.mark.parametrize(
    ("message", "kind", "code", "words"),
    [
        ({"do": "leave", "code": 3}, "exit", 3, "exit code 3"),
        ({"do": "leave", "code": 0}, "exit", 0, "exit code 0"),
        ({"do": "raise"}, "exit", 1, "ValueError: the pudding is off"),
        ({"do": "signal", "number": signal.SIGKILL}, "signal", 9, "killed from outside (SIGKILL)"),
        ({"do": "signal", "number": signal.SIGSEGV}, "signal", 11, "native code (SIGSEGV)"),
        ({"do": "signal", "number": signal.SIGBUS}, "signal", 7, "native code (SIGBUS)"),
        ({"do": "signal", "number": signal.SIGABRT}, "signal", 6, "native code (SIGABRT)"),
        ({"do": "bytes", "hex": "00000004" + b"ruin".hex()}, "signal", 9, "no message"),
        ({"do": "bytes", "hex": "ffffffff"}, "signal", 9, "no message"),
        ({"do": "bytes", "hex": "00000004" + b"ha".hex(), "leave": True}, "exit", 0, "exit code 0"),
    ],
)
async def test_each_way_to_end_is_told_apart(hire: Hire, message: dict, kind: str, code: int, words: str) -> None:
    worker = await hire()
    worker.worker.send(message)
    end = await worker.end()
    assert (end.kind, end.code) == (kind, code)
    assert words in end.title


async def test_a_program_that_cannot_even_start_says_why(hire: Hire) -> None:
    worker = await hire(command=(sys.executable, "-c", "import pudding"))
    end = await worker.end()
    assert (end.kind, end.code) == ("exit", 1)
    assert "No module named 'pudding'" in end.title


def test_a_kill_while_the_kernel_ran_out_of_memory_is_called_that() -> None:
    assert "memory ran out" in describe_exit(-signal.SIGKILL, last_words="", memory_kills=1).title


@pytest.mark.parametrize("hang", ["hold", "ignore-term"])
async def test_a_worker_without_a_heartbeat_leaves_its_stacks_and_is_killed(hire: Hire, hang: str) -> None:
    worker = await hire(limits=SHORT)
    worker.worker.send({"do": hang})
    if hang == "ignore-term":
        await worker.message("ignoring")
        assert worker.worker.pid is not None
        os.kill(worker.worker.pid, signal.SIGSTOP)
    end = await worker.end()
    assert (end.kind, end.code) == ("hung", 9)
    log = worker.log.read_text()
    assert "no sign of life" in log
    if hang == "hold":
        assert "standin.py" in log.partition("no sign of life")[2]


async def test_a_busy_worker_whose_heart_beats_is_left_alone(hire: Hire) -> None:
    worker = await hire(limits=SHORT)
    worker.worker.send({"do": "spin"})
    await worker.message("spinning")
    await asyncio.sleep(2 * SHORT.silence_s)
    assert not worker.exits


async def test_stop_ends_a_worker_that_heeds_nothing(hire: Hire) -> None:
    worker = await hire(limits=Limits(term_s=0.2))
    worker.worker.send({"do": "ignore-term"})
    await worker.message("ignoring")
    await worker.worker.stop(timeout_s=0.2)
    assert [(end.kind, end.code) for end in worker.exits] == [("asked", 9)]


async def test_a_worker_that_cannot_be_killed_is_given_up_in_bounded_time(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hire(limits=Limits(silence_s=0.5, dump_s=0.1, term_s=0.1, kill_s=0.1, drain_s=0.1))
    worker.worker.send({"do": "ignore-term"})
    await worker.message("ignoring")
    pid = worker.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(Worker, "_kill_group", lambda self: None)  # a process in a driver ignores SIGKILL likewise
    end = await worker.end()
    assert end.kind == "hung"
    assert "cannot be killed" in end.title
    os.kill(pid, signal.SIGKILL)
    worker.worker._process.wait()


async def test_the_children_of_a_worker_go_with_it(hire: Hire) -> None:
    worker = await hire()
    worker.worker.send({"do": "child"})
    child = os.pidfd_open((await worker.message("child"))["pid"])
    worker.worker.send({"do": "leave", "code": 1})
    await worker.end()
    gone, _, _ = await asyncio.to_thread(select.select, [child], [], [], PATIENCE_S)
    os.close(child)
    assert gone


async def test_what_a_worker_prints_is_logged_harmless_and_bounded(hire: Hire) -> None:
    worker = await hire()
    worker.worker.send({"do": "print", "text": "red \x1b[31m\x07 half\rnext " + "x" * 100_000})
    worker.worker.send({"do": "exit"})
    await worker.end()
    lines = worker.log.read_text().splitlines()
    assert any(line.endswith("red \\x1b[31m\\x07 half") for line in lines)
    assert max(map(len, lines)) < 2100


async def test_messages_to_a_dead_worker_go_nowhere(hire: Hire) -> None:
    worker = await hire()
    worker.worker.send({"do": "leave", "code": 3})
    await worker.end()
    worker.worker.send({"do": "echo", "text": "anybody?"})
    await worker.worker.stop(timeout_s=1)
    assert len(worker.exits) == 1


async def test_a_fault_in_the_services_callback_does_not_end_the_supervision(
    hire: Hire, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hire()
    await worker.message("ready")
    monkeypatch.setattr(worker.worker, "_on_message", lambda message: 1 / 0)
    worker.worker.send({"do": "echo", "text": "boom"})
    worker.worker.send({"do": "exit"})
    assert (await worker.end()).kind == "exit"
    assert "ZeroDivisionError" in caplog.text


def test_a_worker_is_not_spawned_from_another_thread(tmp_path) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        async def start() -> None:
            worker = Worker(log=tmp_path / "log", on_message=print, on_exit=print)
            await worker.start({})

        try:
            asyncio.run(start())
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])
