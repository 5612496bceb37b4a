"""The supervisor's side of one worker process: start it, talk to it, notice its end, put it down when it hangs.

Used by the service on its event loop, in the main thread (the kernel's death signal follows the thread that spawns).
The invariant: after `on_exit`, which comes once and after the last message, the process is gone, or it is said that
it cannot be killed. Whether and when a next worker starts is the service's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.worker.exits import WorkerExit, count_memory_kills, describe_exit
from daemon.worker.log import LineCutter, WorkerLog
from daemon.worker.wire import Decoder, Message, WireError, encode
from engine.errors import VocableError
from engine.text import escape

__all__ = ["Limits", "Worker", "WorkerExit"]

_log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "daemon.worker.main")
"""-P: a file called torch.py in the folder where the service was started is not imported."""

ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What every worker runs with: no network, no bars, results that can be repeated."""

THREADS = {"GOMP_SPINCOUNT": "1000"}
"""OpenMP's default lets threads spin at each barrier; as soon as the cores are shared with anybody, a step takes ten
to thirty times as long. What the user sets goes before this."""

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """How long the supervisor waits for what, in seconds."""

    silence_s: float = 60.0
    """Without a message (a heartbeat comes twice a second) a worker hangs."""
    dump_s: float = 1.0
    """A hung worker has to write where its threads are."""
    term_s: float = 10.0
    """A worker has to write a checkpoint after SIGTERM."""
    kill_s: float = 10.0
    """The kernel has to end a killed worker; longer means that it sits in a driver for ever."""
    drain_s: float = 2.0
    """The pipes of an ended worker have to run dry."""


class Worker:
    """One worker process. Every method is called on the event loop of the main thread.

    Args:
        log: file that takes what the worker prints and how it came and went.
        on_message: called with each message but heartbeats, in order.
        on_exit: called once, after the last message.
        limits: how long to wait for what.
        command: what to run; tests put a stand-in here.
    """

    def __init__(
        self,
        *,
        log: Path,
        on_message: Callable[[Message], None],
        on_exit: Callable[[WorkerExit], None],
        limits: Limits | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.pid: int | None = None
        """Process id, None before the start and after the end."""
        self._on_message = on_message
        self._on_exit = on_exit
        self._limits = limits or Limits()
        self._command = command
        self._log = WorkerLog(log)
        self._gone = asyncio.Event()
        self._heard = False
        self._asked = False
        self._hung = False
        self._stuck = False
        self._fault = ""
        self._last_words = ""

    async def start(self, settings: Message) -> None:
        """Spawn the process and send it `settings` (the first message; without `do`).

        Raises:
            RuntimeError: not in the main thread, or started before.
            VocableError: `worker.start` when the system refuses a process.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a worker is spawned from the main thread only: it dies with the thread that spawned it")
        if self.pid is not None or self._gone.is_set():
            raise RuntimeError("this worker was started before")
        self._memory_kills = count_memory_kills()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = self._spawn(theirs.fileno())
            except OSError as error:
                ours.close()
                raise VocableError(
                    "worker.start", f"The worker could not be started ({error.strerror}).", "Free memory and try again."
                ) from error
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._note("worker started")
        self.send({"do": "settings", **settings})
        self._owner = asyncio.create_task(self._supervise(reader))

    def send(self, message: Message) -> None:
        """Queue a message for the worker; after its end this does nothing. Raises WireError when it is too long."""
        frame = encode(message)
        if self.pid is not None and not self._writer.is_closing():
            self._writer.write(frame)

    async def stop(self, *, timeout_s: float) -> None:
        """Ask the worker to checkpoint and leave; after `timeout_s` insist with SIGTERM, at last with SIGKILL.

        Returns after `on_exit` was called, at the latest when the limits are used up.
        """
        if self.pid is None:
            return
        self._asked = True
        self.send({"do": "exit"})
        if not await self._gone_within(timeout_s):
            await self._put_down()
        await asyncio.wait([self._owner])

    def kill(self) -> None:
        """Kill the worker's process group now. `on_exit` follows."""
        self._asked = True
        self._kill_group()

    def _spawn(self, fd: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._command, "--fd", str(fd), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(os.environ),
            pass_fds=(fd,),
            start_new_session=True,
            bufsize=0,
        )

    async def _supervise(self, reader: asyncio.StreamReader) -> None:
        messages = asyncio.create_task(self._read_messages(reader))
        output = asyncio.create_task(self._read_output())
        await self._watch_pulse()
        _, late = await asyncio.wait([messages, output], timeout=self._limits.drain_s)
        for task in late:
            task.cancel()
        await asyncio.gather(messages, output, return_exceptions=True)
        self._writer.close()
        end = self._describe_end()
        self._note(end.title)
        self.pid = None
        _shielded(self._on_exit, end)

    async def _watch_pulse(self) -> None:
        """Return when the process is gone. Silence is counted in looks, so that a supervisor which was itself
        stopped for a while (suspend, SIGSTOP) does not take its worker for hung."""
        look_s = min(1.0, self._limits.silence_s / 4)
        silent_s = 0.0
        while not await self._gone_within(look_s):
            silent_s = 0.0 if self._heard else silent_s + look_s
            self._heard = False
            if silent_s >= self._limits.silence_s:
                self._hung = True
                self._note(f"no sign of life for {silent_s:.0f} s; the stacks of its threads follow")
                self._signal(signal.SIGUSR2)
                if not await self._gone_within(self._limits.dump_s):
                    await self._put_down()

    async def _put_down(self) -> None:
        self._signal(signal.SIGTERM)
        if await self._gone_within(self._limits.term_s):
            return
        self._kill_group()
        if not await self._gone_within(self._limits.kill_s):
            self._stuck = True
            self._close_pidfd()
            self._gone.set()

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        try:
            while data := await reader.read(_CHUNK):
                self._heard = True
                for message in decoder.feed(data):
                    if message.get("type") != "beat":
                        _shielded(self._on_message, message)
        except WireError as error:
            self._end_for(f"The worker sent what is no message and was ended: {escape(str(error), 300)}.")
            return
        except OSError as error:
            self._note(f"the connection broke ({error.strerror})")
        with contextlib.suppress(WireError):
            decoder.finish()
            if not await self._gone_within(self._limits.term_s):
                self._end_for("The worker closed its connection without ending, and was ended.")
            return
        self._note("the connection ended inside a message")

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout)
        cutter = LineCutter()
        try:
            while data := await reader.read(_CHUNK):
                self._take_lines(cutter.feed(data))
        finally:
            self._take_lines(cutter.finish())
            transport.close()

    def _take_lines(self, lines: list[str]) -> None:
        for line in lines:
            self._note(line)
            if "error" in line.casefold() and not line.startswith((" ", "Extension modules")):
                self._last_words = escape(line, 300)

    def _reap(self) -> None:
        """Take the exit status as soon as the process is a zombie; its children go with it. While it is a zombie
        its number belongs to nobody else, so the group that is killed is surely its own."""
        self._kill_group()
        if self._process.poll() is not None:
            self._close_pidfd()
            self._gone.set()

    def _describe_end(self) -> WorkerExit:
        if self._stuck:
            title = "The worker hangs inside a driver and cannot be killed; restart the machine to free the device."
            return WorkerExit("hung", signal.SIGKILL, title)
        returncode = self._process.returncode or 0
        if self._hung:
            title = f"The worker gave no sign of life for {self._limits.silence_s:.0f} s and was ended."
            return WorkerExit("hung", abs(returncode), title)
        if self._fault:
            return WorkerExit("signal", abs(returncode), self._fault)
        if self._asked:
            return WorkerExit("asked", abs(returncode), "The worker ended as it was told to.")
        kills = count_memory_kills() - self._memory_kills
        return describe_exit(returncode, last_words=self._last_words, memory_kills=kills)

    def _end_for(self, fault: str) -> None:
        self._fault = fault
        self._kill_group()

    def _signal(self, number: signal.Signals) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _kill_group(self) -> None:
        if self.pid is not None and not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _gone_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), seconds)
        return self._gone.is_set()

    def _close_pidfd(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)

    def _note(self, line: str) -> None:
        self._log.write(self.pid or 0, line)


def _environment(base: Mapping[str, str]) -> dict[str, str]:
    return {**THREADS, **base, **ENVIRONMENT}


def _shielded(callback: Callable[[Any], None], value: Any) -> None:
    """Call into the service; a fault of its own must not end the supervision."""
    try:
        callback(value)
    except Exception:
        _log.exception("a callback of the service failed")
