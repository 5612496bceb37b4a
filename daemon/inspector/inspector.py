"""The supervisor's side of the inspector: keeps the fork server and asks questions, whatever becomes of who answers.

Used by the library and by the service's questions about files. Runs on the event loop of the supervisor's main thread,
which must be the one that starts processes. The invariant: a question costs at most its own answer; no process,
descriptor or wait of it is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.inspector.frames import FrameError, Message, pack, unpack
from daemon.inspector.limits import answer_bytes, extra_s
from daemon.worker.exits import signal_name
from engine.errors import VocableError

COMMAND = (sys.executable, "-I", "-m", "daemon.inspector.main")
WALL_S = 15.0
"""A child is killed after so long."""
IDLE_S = 60.0
"""The fork server is let go after so long without a question."""
GRACE_S = 5.0
"""The fork server is killed when it has not told the end of a child so long after its time was up."""
AT_ONCE = 2
"""Children that run beside each other."""

_KEPT = ("LD_LIBRARY_PATH", "LANG", "LC_ALL")
_CHUNK = 1 << 18
_MAX_REPORT = 4096


class Inspector:
    """Has questions about foreign bytes answered by children of a fork server.

    Args:
        command: the fork server; tests put faulty ones here.
        wall_s: time for one answer; large files get more.
        idle_s: the fork server ends after so long without a question.
        at_once: children beside each other.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] = COMMAND,
        wall_s: float = WALL_S,
        idle_s: float = IDLE_S,
        at_once: int = AT_ONCE,
    ) -> None:
        self._command = command
        self._wall_s = wall_s
        self._idle_s = idle_s
        self._slots = asyncio.Semaphore(at_once)
        self._starting = asyncio.Lock()
        self._server: _Server | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._busy = 0
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """Process id of the fork server, if there is one."""
        return self._server.process.pid if self._server and not self._server.is_lost else None

    async def ask(self, question: Message, parts: Sequence[bytes]) -> tuple[Message, list[bytes]]:
        """Have a child answer; `question["do"]` names one of `operations.OPERATIONS`.

        Raises:
            VocableError: what the child found wrong with the file; `inspector.lost` when it crashed, took too long or
                made no sense; `inspector.start` when there was no process to be had.
        """
        pieces = pack(question, parts)
        self._busy += 1
        if self._idle:
            self._idle.cancel()
        try:
            async with self._slots:
                reply, results = await self._ask_some_server(pieces)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._retire)
        if "error" in reply:
            raise _told(reply["error"])
        return reply, results

    async def close(self) -> None:
        """End the fork server and whatever it has under way."""
        if self._idle:
            self._idle.cancel()
        self._retire()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _ask_some_server(self, pieces: Sequence[bytes]) -> tuple[Message, list[bytes]]:
        """Ask; a fork server that ended, by whatever hand, is replaced once."""
        for _ in range(2):
            server = await self._start()
            with contextlib.suppress(_ServerLost):
                return await server.ask(pieces, self._wall_s)
        raise VocableError("inspector.start", "The process that starts the readers of files ended.", "Try again.")

    async def _start(self) -> _Server:
        async with self._starting:
            if self._server is None or self._server.is_lost:
                self._retire()
                self._server = await _Server.start(self._command)
            return self._server

    def _retire(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            task = asyncio.create_task(server.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class _ServerLost(Exception):
    """The fork server ended while it was wanted."""


@dataclass(frozen=True)
class _End:
    """How a child ended, as the fork server tells it."""

    code: int = 0
    """Negative for a signal."""
    late: bool = False
    refused: str = ""
    """Why there was no child."""


class _Server:
    """One fork server process."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self.is_lost = False
        self._control = control
        self._numbers = itertools.count()
        self._ends: dict[int, asyncio.Future[_End]] = {}
        asyncio.get_running_loop().add_reader(control, self._listen)

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                *(*command, "--parent", str(os.getpid())),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={"OPENBLAS_NUM_THREADS": "1"} | {key: os.environ[key] for key in _KEPT if key in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            title = f"There is no process to read the file ({error.strerror})."
            raise VocableError("inspector.start", title, "It is tried again by itself.") from None
        finally:
            theirs.close()
        return cls(process, ours)

    async def end(self) -> None:
        """Kill the process group, children included, and wait for it."""
        self._lose()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def ask(self, pieces: Sequence[bytes], wall_s: float) -> tuple[Message, list[bytes]]:
        """Have one child made and talk to it. Raises VocableError, or _ServerLost."""
        number, size = next(self._numbers), sum(map(len, pieces))
        wall_s, max_answer = wall_s + 2 * extra_s(size), answer_bytes(size)
        ended = self._ends[number] = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with ours:
                with theirs:
                    self._send({"do": "fork", "id": number, "wall_s": wall_s, "size": size}, theirs.fileno())
                async with asyncio.timeout(wall_s + GRACE_S):
                    output = await _converse(ours, pieces, max_answer)
                    if len(output) > max_answer:
                        raise lost(f"answered more than {max_answer >> 20} MiB")
                    ours.close()
                    _check_end(await ended, wall_s)
        except TimeoutError:
            await self.end()  # the fork server itself hangs
            raise lost(f"took longer than {wall_s:g} s") from None
        finally:
            if self._ends.pop(number, None) and not ended.done() and not self.is_lost:
                with contextlib.suppress(_ServerLost):
                    self._send({"do": "kill", "id": number})
            if not ended.cancel() and not ended.cancelled():
                ended.exception()  # looked at, so that asyncio does not warn of it
        try:
            return unpack(output)
        except FrameError as error:
            raise lost(f"answered what makes no sense ({error})") from None

    def _send(self, message: dict[str, Any], *descriptors: int) -> None:
        if self.is_lost:
            raise _ServerLost
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except OSError:
            self._lose()
            raise _ServerLost from None

    def _listen(self) -> None:
        try:
            data = self._control.recv(_MAX_REPORT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            values = json.loads(data)
            number = values.pop("id")
            end = _End(**values)
        except (ValueError, TypeError, KeyError, AttributeError):  # its end, or nonsense
            self._lose()
            return
        waiting = self._ends.get(number)
        if waiting and not waiting.done():
            waiting.set_result(end)

    def _lose(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        for waiting in self._ends.values():
            if not waiting.done():
                waiting.set_exception(_ServerLost())


async def _converse(connection: socket.socket, pieces: Sequence[bytes], max_bytes: int) -> bytearray:
    """Send a question while its answer is read; stops reading an answer that is too long."""
    feeding = asyncio.create_task(_feed(connection, pieces))
    output = bytearray()
    try:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):  # it ended; how, the fork server tells
            while len(output) <= max_bytes and (chunk := await loop.sock_recv(connection, _CHUNK)):
                output += chunk
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    return output


async def _feed(connection: socket.socket, pieces: Sequence[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            await asyncio.get_running_loop().sock_sendall(connection, piece)


def _check_end(end: _End, wall_s: float) -> None:
    if end.refused:
        title = f"There is no process to read the file ({end.refused})."
        raise VocableError("inspector.start", title, "It is tried again by itself.")
    if end.late:
        raise lost(f"took longer than {wall_s:g} s")
    if end.code:
        raise lost(f"died ({signal_name(-end.code)})" if end.code < 0 else f"failed (exit code {end.code})")


def _told(error: Any) -> VocableError:
    try:
        return VocableError(str(error["code"]), str(error["title"]), str(error["hint"]))
    except (KeyError, TypeError):
        return lost("answered what makes no sense")


def lost(what: str) -> VocableError:
    """The error of a file whose reader came to grief."""
    return VocableError("inspector.lost", f"The file is not used: the process that read it {what}.")
