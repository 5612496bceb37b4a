"""Figures of the library with many files: a real service, an embeddings folder of its own, its speed and its cost.

`python benchmarks/library.py [--files 10000]`. Prints how soon the service answers, when every file is a word (with no
cache, then with one), how long requests took meanwhile, and what the idle service takes. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from daemon.client import Client, socket_for
from daemon.paths import Workspace
from engine.embedding.vectors import Embedding
from engine.embedding.write import encode_safetensors
from engine.errors import VocableError

WIDTHS = (768, 768, 768, 1024, 64)
IDLE_S = 30.0
FLOOD = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    files: int = parser.parse_args().files
    with tempfile.TemporaryDirectory(prefix="vocable-benchmark-") as folder:
        workspace = Workspace(Path(folder))
        workspace.create()
        for number in range(files):
            write_word(workspace.embeddings, number)
        print(f"{files} files, {os.cpu_count()} cores")
        asyncio.run(measure(workspace, files, "no cache"))
        asyncio.run(measure(workspace, files, "with cache", idle=True))


def write_word(folder: Path, number: int) -> None:
    """A distinct word of 1 to 8 vectors; every twentieth lies in a sub-folder."""
    draw = np.random.default_rng(number)
    width = WIDTHS[number % len(WIDTHS)]
    vectors = draw.normal(0, 0.02, (1 + number % 8, width)).astype(np.float32)
    place = folder / f"shelf {number % 10}" if number % 20 == 0 else folder
    place.mkdir(exist_ok=True)
    word = Embedding(f"word {number}", vectors, step=number, model="sd-v1-5")
    (place / f"word {number}.safetensors").write_bytes(encode_safetensors(word))


async def measure(workspace: Workspace, files: int, what: str, *, idle: bool = False) -> None:
    started = time.monotonic()
    command = [sys.executable, "-P", "-m", "daemon", "--workspace", str(workspace.root)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: ASYNC220 - nothing else runs yet
        try:
            async with Client(socket_for(workspace)) as client:
                await until(lambda: answers(client))
                print(f"\n{what}: answers after {time.monotonic() - started:.2f} s")
                waits: list[float] = []
                await until(lambda: knows(client, files, waits))
                print(f"{what}: every file known after {time.monotonic() - started:.1f} s; ", end="")
                print(f"requests meanwhile took at most {1000 * max(waits, default=0):.0f} ms")
                print(f"{what}: processor time {spent(process.pid)} (service and its children), {memory(process.pid)}")
                begun = time.monotonic()
                state = await client.state()
                print(f"{what}: /v1/state of {len(state.words)} words in {1000 * (time.monotonic() - begun):.0f} ms")
                if idle:
                    await measure_idle(process.pid)
                    await measure_flood(client, workspace, files)
        finally:
            process.terminate()
            process.wait(30)


async def measure_idle(pid: int) -> None:
    before = sum(cpu_s(pid))
    await asyncio.sleep(IDLE_S)
    print(f"idle: {100 * (sum(cpu_s(pid)) - before) / IDLE_S:.2f} % of one core over {IDLE_S:g} s")


async def measure_flood(client: Client, workspace: Workspace, files: int) -> None:
    begun = time.monotonic()
    for number in range(files, files + FLOOD):
        write_word(workspace.embeddings, number)
    written = time.monotonic()
    waits: list[float] = []
    await until(lambda: knows(client, files + FLOOD, waits))
    print(
        f"flood: {FLOOD} files written in {written - begun:.1f} s, known {time.monotonic() - written:.1f} s later; ",
        end="",
    )
    print(f"requests meanwhile took at most {1000 * max(waits, default=0):.0f} ms")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(600):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def answers(client: Client) -> bool:
    try:
        await client.info()
    except VocableError:
        return False
    return True


async def knows(client: Client, files: int, waits: list[float]) -> bool:
    """Ask for something small often, whose wait shows how long the event loop was held up, and for all words seldom."""
    for _ in range(20):
        begun = time.monotonic()
        await client.info()
        waits.append(time.monotonic() - begun)
        await asyncio.sleep(0.02)
    return len(await client.words()) == files


def cpu_s(pid: int) -> tuple[float, float]:
    """Seconds of processor time of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    own, children = (int(fields[11]) + int(fields[12])) / tick, (int(fields[13]) + int(fields[14])) / tick
    return own, children


def spent(pid: int) -> str:
    own, _ = cpu_s(pid)
    servers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    beside = sum(sum(cpu_s(int(server))) for server in servers)
    return f"{own:.1f} s + {beside:.1f} s"


def memory(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return f"{int(status.partition('VmRSS:')[2].split()[0]) >> 10} MiB"


if __name__ == "__main__":
    main()
