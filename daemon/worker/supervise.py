"""The supervisor's side of one worker process: start it, talk to it, notice its end, put it down when it hangs.

Used by the service on its event loop, in the main thread (the kernel's death signal follows the thread that spawns).
The invariant: `on_exit` comes once the process is gone, after its last message. Only for a process that cannot be
killed it comes twice: with kind `wedged` when that is known, and again when the process is gone after all. Whether and
when a next worker starts is the service's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.waiting import wait_at_most
from daemon.worker import crashes, footprint
from daemon.worker.board import Board, Mark
from daemon.worker.exits import WorkerExit, count_memory_kills, describe_exit, describe_place
from daemon.worker.log import LineCutter, LineLimiter, WorkerLog
from daemon.worker.pulse import Deadlines, Pulse, count_bytes_read
from daemon.worker.spawn import COMMAND, spawn
from daemon.worker.wire import Decoder, Message, WireError, encode
from engine.errors import VocableError
from engine.text import escape

__all__ = ["COMMAND", "Limits", "Worker", "WorkerExit"]

_log = logging.getLogger(__name__)

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """How long the supervisor waits for what, in seconds."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    """A worker without a sign of life for longer than these hangs."""
    dump_s: float = 1.0
    """A hung worker has to write where its threads are."""
    term_s: float = 10.0
    """A worker has to write a checkpoint after SIGTERM."""
    kill_s: float = 10.0
    """The kernel has to end a killed worker; longer means that it sits in a driver, perhaps for ever."""
    drain_s: float = 2.0
    """The pipes of an ended worker have to run dry."""


class Worker:
    """One worker process. Every method is called on the event loop of the main thread.

    Args:
        log: file that takes what the worker prints and how it came and went; beside it are `worker.json`, which names
            the living process, and `crashes/`.
        on_message: called with each message but heartbeats, in order.
        on_exit: called after the last message; see above.
        limits: how long to wait for what.
        command: what to run; tests put a stand-in here.
    """

    _count = itertools.count(1)

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
        self._footprint = log.with_name(footprint.NAME)
        self._report = crashes.crash_path(log.with_name(crashes.FOLDER), next(self._count))
        self._gone = asyncio.Event()
        self._given_up = asyncio.Event()
        self._heard = False
        self._asked = False
        self._hung = ""
        self._hint = ""
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
        try:
            ours = self._spawn()
        except OSError as error:
            raise VocableError(
                "worker.start", f"The worker could not be started ({error.strerror}).", "Free memory and try again."
            ) from error
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        footprint.leave_footprint(self._footprint, self.pid)
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
        if await self._gone_within(timeout_s) or await self._put_down():
            await asyncio.wait([self._owner])

    def kill(self) -> None:
        """Kill the worker's process group now. `on_exit` follows."""
        self._asked = True
        self._kill_group()

    def _spawn(self) -> socket.socket:
        """Start the process and return our end of the connection to it."""
        with contextlib.ExitStack() as stack:
            self._board = Board.make()
            stack.callback(self._board.close)
            self._stacks = os.memfd_create("vocable-stacks")
            stack.callback(os.close, self._stacks)
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            with theirs:
                shared = {"fd": theirs.fileno(), "board": self._board.fd, "stacks": self._stacks}
                self._process = spawn(self._command, report=self._report, **shared)
            stack.pop_all()
        return ours

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
        self._clean_up()
        _shielded(self._on_exit, end)

    async def _watch_pulse(self) -> None:
        """Return when the process is gone."""
        pulse = Pulse(self._limits.deadlines)
        look_s = min(1.0, self._limits.deadlines.heartbeat_s / 4)
        while not await self._gone_within(look_s):
            mark, heard, self._heard = self._board.read(), self._heard, False
            assert self.pid is not None
            reason = pulse.look(look_s, mark, heard=heard, bytes_read=count_bytes_read(self.pid))
            if reason:
                await self._end_hung(reason, mark)
                await self._gone.wait()

    async def _end_hung(self, reason: str, mark: Mark) -> None:
        """Keep where the threads of a hung worker are, and put it down."""
        self._hung = f"{reason}{describe_place(mark)} and was ended."
        self._note(reason)
        self._signal(signal.SIGUSR2)
        if not await self._gone_within(self._limits.dump_s):
            stacks = os.pread(self._stacks, os.fstat(self._stacks).st_size, 0)
            kept = crashes.save_stacks(self._report, stacks)
            self._hint = f"Where its threads were is written in {kept}." if kept else ""
            await self._put_down()

    async def _put_down(self) -> bool:
        """Insist on the end; False when the kernel cannot end the process either, which is reported at once."""
        self._signal(signal.SIGTERM)
        return await self._gone_within(self._limits.term_s) or await self._kill_for_good()

    async def _kill_for_good(self) -> bool:
        self._kill_group()
        if await self._gone_within(self._limits.kill_s):
            return True
        if not self._given_up.is_set():
            self._given_up.set()
            title = f"The worker (pid {self.pid}) hangs inside a driver and cannot be killed, so it keeps the device."
            hint = f"Restart the machine. {self._hint}".strip()
            end = WorkerExit("wedged", signal.SIGKILL, title, hint, self._board.read())
            self._note(end.title)
            _shielded(self._on_exit, end)
        return False

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        try:
            while data := await reader.read(_CHUNK):
                self._heard = True
                for message in decoder.feed(data):
                    if message.get("type") != "beat":
                        _shielded(self._on_message, message)
        except WireError as error:
            self._fault = f"The worker sent what is no message and was ended: {escape(str(error), 300)}."
            await self._kill_for_good()
            return
        except OSError as error:
            self._note(f"the connection broke ({error.strerror})")
        with contextlib.suppress(WireError):
            decoder.finish()
            if not await self._gone_within(self._limits.term_s):
                self._fault = "The worker closed its connection without ending, and was ended."
                await self._kill_for_good()
            return
        self._note("the connection ended inside a message")

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout)
        cutter = LineCutter()
        self._limiter = LineLimiter()
        try:
            while data := await reader.read(_CHUNK):
                self._take_lines(cutter.feed(data))
        finally:
            self._take_lines(cutter.finish())
            for line in self._limiter.finish():
                self._note(line)
            transport.close()

    def _take_lines(self, lines: list[str]) -> None:
        for line in lines:
            if "error" in line.casefold() and not line.startswith((" ", "Extension modules")):
                self._last_words = escape(line, 300)
        for line in self._limiter.admit(lines, time.monotonic()):
            self._note(line)

    def _reap(self) -> None:
        """Take the exit status as soon as the process is a zombie; its children go with it. While it is a zombie
        its number belongs to nobody else, so the group that is killed is surely its own."""
        self._kill_group()
        if self._process.poll() is not None:
            self._close_pidfd()
            self._gone.set()

    def _describe_end(self) -> WorkerExit:
        returncode, mark = self._process.returncode or 0, self._board.read()
        if self._hung:
            return WorkerExit("hung", abs(returncode), self._hung, self._hint, mark)
        if self._fault:
            return WorkerExit("garbled", abs(returncode), self._fault, "", mark)
        if self._asked:
            return WorkerExit("asked", abs(returncode), "The worker ended as it was told to.", "", mark)
        return describe_exit(
            returncode,
            last_words=self._last_words,
            memory_kills=count_memory_kills() - self._memory_kills,
            mark=mark,
            report=crashes.read_report(self._report),
        )

    def _clean_up(self) -> None:
        self._board.close()
        os.close(self._stacks)
        crashes.drop_old_crashes(self._report.parent)
        footprint.remove_footprint(self._footprint)
        self.pid = None

    def _signal(self, number: signal.Signals) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _kill_group(self) -> None:
        if self.pid is not None and not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _gone_within(self, seconds: float) -> bool:
        return await wait_at_most(self._gone, seconds)

    def _close_pidfd(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)

    def _note(self, line: str) -> None:
        self._log.write(self.pid or 0, line)


def _shielded(callback: Callable[[Any], None], value: Any) -> None:
    """Call into the service; a fault of its own must not end the supervision."""
    try:
        callback(value)
    except Exception:
        _log.exception("a callback of the service failed")
