"""A worker without torch: the real guards, channel and heartbeat, and one behaviour for each message it gets."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

from daemon.worker.channel import Channel
from daemon.worker.main import dismiss, enlist


def main() -> None:
    channel = enlist(sys.argv[1:])
    while True:
        message = channel.receive(wait=True)
        assert message is not None
        behave(channel, message)


def behave(channel: Channel, message: dict[str, Any]) -> None:
    match message["do"]:
        case "settings":
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
            raise ValueError("the pudding is off")
        case "signal":
            os.kill(os.getpid(), message["number"])
        case "bytes":
            channel.finish(timeout_s=5)
            channel._socket.sendall(bytes.fromhex(message["hex"]))
            if message.get("leave"):
                os._exit(0)


def hold_interpreter_lock() -> None:
    """Wait in C for ever, without letting go of the interpreter lock, as a faulty extension does."""
    library = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


if __name__ == "__main__":
    main()
