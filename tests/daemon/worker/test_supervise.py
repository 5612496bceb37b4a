from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path

import pytest

from daemon.worker import exits
from daemon.worker.board import Mark
from daemon.worker.exits import count_memory_kills, describe_exit
from daemon.worker.pulse import Deadlines
from daemon.worker.supervise import Limits, Worker
from tests.daemon.worker.conftest import PATIENCE_S, Hire

SHORT = Limits(deadlines=Deadlines(heartbeat_s=1.0, step_s=1.0), dump_s=0.5, term_s=0.5, kill_s=5.0, drain_s=1.0)


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
        ({"do": "raise"}, "error", 1, "with an error in step 58: ValueError: the pudding is off"),
        ({"do": "lose-device"}, "device", 1, "The device failed: CUDA error: unspecified launch failure"),
        ({"do": "starve"}, "memory", 1, "Memory ran out in the worker (MemoryError)"),
        ({"do": "signal", "number": signal.SIGKILL}, "killed", 9, "killed from outside (SIGKILL)"),
        ({"do": "signal", "number": signal.SIGSEGV}, "native", 11, "native code (SIGSEGV)"),
        ({"do": "signal", "number": signal.SIGBUS}, "native", 7, "native code (SIGBUS)"),
        ({"do": "signal", "number": signal.SIGABRT}, "native", 6, "native code (SIGABRT)"),
        ({"do": "bytes", "hex": "00000004" + b"ruin".hex()}, "garbled", 9, "no message"),
        ({"do": "bytes", "hex": "ffffffff"}, "garbled", 9, "no message"),
        ({"do": "garbage"}, "garbled", 9, "no message"),
        ({"do": "huge"}, "garbled", 9, "claims 104857600 bytes"),
        ({"do": "bytes", "hex": "00000004" + b"ha".hex(), "leave": True}, "exit", 0, "exit code 0"),
    ],
)
async def test_each_way_to_end_is_told_apart(hire: Hire, message: dict, kind: str, code: int, words: str) -> None:
    worker = await hire()
    worker.worker.send(message)
    end = await worker.end()
    assert (end.kind, end.code) == (kind, code)
    assert words in end.title


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", (100 << 20).to_bytes(4, "big"), b"\0\0\0\4ruin"])
async def test_a_worker_that_gets_nonsense_leaves(hire: Hire, sent: bytes) -> None:
    worker = await hire()
    await worker.message("ready")
    worker.worker._writer.write(sent)
    end = await worker.end()
    assert (end.kind, end.code) == ("exit", os.EX_UNAVAILABLE)


async def test_a_program_that_cannot_even_start_says_why(hire: Hire) -> None:
    worker = await hire(command=(sys.executable, "-c", "import pudding"))
    end = await worker.end()
    assert (end.kind, end.code) == ("exit", 1)
    assert "No module named 'pudding'" in end.title


def test_a_kill_while_the_kernel_ran_out_of_memory_is_called_that() -> None:
    mark = Mark("step", 57, 9)
    end = describe_exit(-signal.SIGKILL, last_words="", memory_kills=1, mark=mark, report=None)
    assert (end.kind, end.mark) == ("memory", mark)
    assert "in step 58, probably by the kernel because memory ran out" in end.title


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
    assert "gave no sign of life for 1 s" in end.title
    if hang == "hold":
        assert "standin.py" in named_file(end.hint).read_text()


async def test_a_beating_worker_that_does_not_get_on_leaves_its_stacks_and_is_ended(hire: Hire) -> None:
    worker = await hire(limits=SHORT)
    worker.worker.send({"do": "stall", "phase": "step"})
    end = await worker.end()
    assert (end.kind, end.mark.step) == ("hung", 57)
    assert "made no progress for 1 s in step 58" in end.title
    assert "standin.py" in named_file(end.hint).read_text()


async def test_work_that_takes_longer_than_its_deadline_but_gets_on_is_left_alone(hire: Hire) -> None:
    worker = await hire(limits=SHORT)
    worker.worker.send({"do": "crawl", "steps": 5, "pause_s": 0.4})
    await worker.message("arrived")
    assert not worker.exits


async def test_a_busy_worker_whose_heart_beats_is_left_alone(hire: Hire) -> None:
    worker = await hire(limits=SHORT)
    worker.worker.send({"do": "spin"})
    await worker.message("spinning")
    await asyncio.sleep(2 * SHORT.deadlines.heartbeat_s)
    assert not worker.exits


async def test_stop_ends_a_worker_that_heeds_nothing(hire: Hire) -> None:
    worker = await hire(limits=Limits(term_s=0.2))
    worker.worker.send({"do": "ignore-term"})
    await worker.message("ignoring")
    await worker.worker.stop(timeout_s=0.2)
    assert [(end.kind, end.code) for end in worker.exits] == [("asked", 9)]


async def test_a_worker_that_cannot_be_killed_is_told_of_in_bounded_time_and_again_when_it_goes(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hire(limits=Limits(Deadlines(heartbeat_s=1), dump_s=0.1, term_s=0.1, kill_s=0.1, drain_s=0.1))
    worker.worker.send({"do": "ignore-term"})
    await worker.message("ignoring")
    pid = worker.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    kill_group = Worker._kill_group
    monkeypatch.setattr(Worker, "_kill_group", lambda self: None)  # a process in a driver ignores SIGKILL likewise
    end = await worker.end()
    assert end.kind == "wedged"
    assert "cannot be killed" in end.title
    await worker.worker.stop(timeout_s=0.1)
    assert (len(worker.exits), worker.worker.pid) == (1, pid)
    monkeypatch.setattr(Worker, "_kill_group", kill_group)
    os.kill(pid, signal.SIGKILL)
    await worker.until(lambda: len(worker.exits) == 2)
    assert (worker.exits[1].kind, worker.worker.pid) == ("hung", None)


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


async def test_an_exception_leaves_a_report_and_its_traceback(hire: Hire) -> None:
    worker = await hire()
    worker.worker.send({"do": "raise"})
    end = await worker.end()
    assert "ValueError: the pudding is off" in named_file(end.hint).read_text()
    (report,) = worker.log.parent.glob("crashes/*.json")
    assert json.loads(report.read_text())["step"] == 57


def test_a_memory_kill_in_the_own_control_group_counts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "_own_group", lambda: tmp_path)
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 3\noom_group_kill 0\n")
    assert count_memory_kills() == 3
    (tmp_path / "memory.events").unlink()
    assert count_memory_kills() == exits._read_count(Path("/proc/vmstat"))


async def test_a_worker_is_the_first_that_the_kernel_kills_for_memory(hire: Hire) -> None:
    worker = await hire()
    await worker.message("ready")
    with open(f"/proc/{worker.worker.pid}/oom_score_adj") as file:  # noqa: ASYNC230 - no disk is behind it
        assert file.read().strip() == "500"


def named_file(hint: str) -> Path:
    """The file whose path ends a hint."""
    return Path(hint.rpartition(" ")[2].rstrip("."))


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
