"""Has foreign bytes read in a process of their own and returns what it said, whatever becomes of that process.

Called by the library on the event loop of the supervisor's main thread.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.inspector.verdicts import Verdict
from daemon.worker.exits import signal_name
from daemon.worker.wire import MAX_MESSAGE, Decoder, Message, WireError
from engine.errors import VocableError

COMMAND = (sys.executable, "-I", "-m", "daemon.inspector.main")
WALL_S = 15.0

_KEPT = ("LD_LIBRARY_PATH", "LANG", "LC_ALL")
_CHUNK = 1 << 16
_MAX_OUTPUT = MAX_MESSAGE + 4


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    canonical: bytes
    """The word as our own safetensors file; empty when the verdict is an error."""


async def judge(data: bytes, stem: str, *, wall_s: float = WALL_S, command: Sequence[str] = COMMAND) -> Judgement:
    """Inspect one file.

    Args:
        data: its bytes.
        stem: its name without extension.
        wall_s: after so long the process is killed.
        command: what to run; tests put faulty inspectors here.

    Raises:
        VocableError: `inspector.lost` when the process crashed, took too long or made no sense: nothing is known of
            the file but that; `inspector.start` when there was no process to be had.
    """
    arguments = [*command, "--parent", str(os.getpid()), f"--stem={stem}"]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"OPENBLAS_NUM_THREADS": "1"} | {key: os.environ[key] for key in _KEPT if key in os.environ},
            start_new_session=True,
        )
    except OSError as error:
        raise VocableError("inspector.start", f"There is no process to read the file ({error.strerror}).") from None
    try:
        async with asyncio.timeout(wall_s):
            _, output = await asyncio.gather(_feed(process, data), _read(process))
            returncode = await process.wait()
    except TimeoutError:
        raise _lost(f"took longer than {wall_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if returncode != 0:
        raise _lost(f"died ({signal_name(-returncode)})" if returncode < 0 else f"failed (exit code {returncode})")
    return _understand(output)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    output = bytearray()
    while chunk := await process.stdout.read(_CHUNK):
        output += chunk
        if len(output) > _MAX_OUTPUT:
            process.kill()
            break
    return bytes(output)


def _understand(output: bytes) -> Judgement:
    try:
        decoder = Decoder()
        (reply,) = decoder.feed(output)
        decoder.finish()
        return _parse(reply)
    except (WireError, KeyError, TypeError, ValueError) as error:
        raise _lost(f"answered what makes no sense ({type(error).__name__})") from None


def _parse(reply: Message) -> Judgement:
    if "error" in reply:
        error = reply["error"]
        return Judgement(Verdict(code=str(error["code"]), title=str(error["title"]), hint=str(error["hint"])), b"")
    verdict = Verdict(
        vectors=int(reply["vectors"]), width=int(reply["width"]), step=int(reply["step"]), model=str(reply["model"])
    )
    return Judgement(verdict, base64.b64decode(reply["safetensors"], validate=True))


def _lost(what: str) -> VocableError:
    return VocableError("inspector.lost", f"The file is not used: the process that read it {what}.")
