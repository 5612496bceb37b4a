"""A worker without torch: the real guards, channel and heartbeat, and one behaviour for each message it gets."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from daemon.worker.crashes import DeviceLost, write_report
from daemon.worker.main import Line, dismiss, enlist


def main() -> None:
    line = enlist(sys.argv[1:])
    try:
        while True:
            message = line.channel.receive(wait=True)
            assert message is not None
            behave(line, message)
    except Exception as error:
        traceback.print_exception(error)
        write_report(line.report, error, line.board.read())
        dismiss(line.channel, 1)


def behave(line: Line, message: dict[str, Any]) -> None:
    channel, board = line.channel, line.board
    match message["do"]:
        case "settings":
            board.enter("idle", None)
            channel.send({"type": "ready", "device": message.get("device", "")})
        case "exit":
            dismiss(channel, 0)
        case "echo":
            channel.send({"type": "echo", "text": message["text"]})
        case "print":
            print(message["text"])
        case "flood":
            for step in range(message["count"]):
                channel.send({"type": "fact", "n": step})
        case "spin":
            channel.send({"type": "spinning"})
            while True:
                pass
        case "hold":
            channel.send({"type": "holding"})
            channel._outbox.wait_empty(5)
            hold_interpreter_lock()
        case "ignore-term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            channel.send({"type": "ignoring"})
            time.sleep(600)
        case "child":
            channel.send({"type": "child", "pid": os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")})
        case "leave":
            os._exit(message["code"])
        case "raise":
            board.enter("step", 57)
            raise ValueError("the pudding is off")
        case "lose-device":
            raise DeviceLost("CUDA error: unspecified launch failure")
        case "starve":
            raise MemoryError
        case "enter":
            board.enter(message["phase"], message.get("step"))
            channel.send({"type": "entered"})
        case "stall":
            board.enter(message["phase"], 57)
            time.sleep(600)
        case "train":
            train(line, message)
        case "crawl":
            board.enter("step", 0)
            channel.send({"type": "crawling"})
            for step in range(message["steps"]):
                time.sleep(message["pause_s"])
                board.move(step)
            channel.send({"type": "arrived"})
        case "garbage":
            channel.finish(timeout_s=5)
            chunk = os.urandom(1 << 16)
            while True:
                channel._socket.sendall(chunk)
        case "huge":
            channel.finish(timeout_s=5)
            channel._socket.sendall((100 << 20).to_bytes(4, "big"))
            for _ in range(100):
                channel._socket.sendall(bytes(1 << 20))
        case "signal":
            os.kill(os.getpid(), message["number"])
        case "bytes":
            channel.finish(timeout_s=5)
            channel._socket.sendall(bytes.fromhex(message["hex"]))
            if message.get("leave"):
                os._exit(0)


def train(line: Line, message: dict[str, Any]) -> None:
    """Hang for good, deaf to SIGTERM, when the run comes for the first time; end it at once the second time."""
    trace = Path(message["folder"], "was-here")
    if not trace.exists():
        trace.touch()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        line.board.enter("step", 57)
        time.sleep(600)
    ended = {"event": "ended", "outcome": "stopped", "step": 57, "embedding": ""}
    line.channel.send({"type": "event", "run": message["run"], "event": ended})


def hold_interpreter_lock() -> None:
    """Wait in C for ever, without letting go of the interpreter lock, as a faulty extension does."""
    library = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


if __name__ == "__main__":
    main()
