"""Figures of the service under load: many clients beside a training run, and how many calls it answers without one.

`python benchmarks/load.py [--seconds 60] [--rounds 2]`. A real service and a real run on the starter model; the worker
is given one core, service and clients the others. Windows with and without clients alternate, so that whatever else the
machine does meets both. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from daemon.client import Client, socket_for
from daemon.paths import Workspace
from engine.errors import VocableError
from engine.models.starter.sample import INIT_WORD, TRAIN_DIR

STREAMS = 32
"""One of them reads nothing at all."""
CALLS_PER_S = 100
CALLERS = 10
FLOOD_CALLERS = 16
FLOOD_S = 10.0
STATE = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
EVENTS = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = 1_000_000
"""More steps than any measurement lasts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each window")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of windows, one without clients and one with")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="vocable-benchmark-") as folder:
        workspace = Workspace(Path(folder))
        workspace.create()
        asyncio.run(measure(workspace, options.seconds, options.rounds))


async def measure(workspace: Workspace, seconds: float, rounds: int) -> None:
    worker_core, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others or {worker_core})
    command = [sys.executable, "-P", "-m", "daemon", "--workspace", str(workspace.root)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environ) as process:  # noqa: ASYNC220 - nothing runs yet
        try:
            async with Client(socket_for(workspace)) as client:
                await until_ready(client)
                await measure_flood(client, process.pid)
                run = await begin_run(client, worker_core)
                for number in range(1, rounds + 1):
                    await measure_pair(client, run, process.pid, seconds, number)
        finally:
            process.terminate()
            process.wait(30)


async def until_ready(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await client.info()
                return
            except VocableError:
                await asyncio.sleep(0.05)


async def measure_flood(client: Client, pid: int) -> None:
    """Calls that follow each other without a pause, while nothing else is to do."""
    deadline = time.monotonic() + FLOOD_S
    waits = await asyncio.gather(*(call_until(client.socket, deadline) for _ in range(FLOOD_CALLERS)))
    flat = [wait for one in waits for wait in one]
    print(f"without a run: {len(flat) / FLOOD_S:.0f} calls of /v1/state a second, {tell(flat)}; {memory(pid)}")


async def begin_run(client: Client, core: int) -> str:
    """Queue a run without end, wait for its first steps and give its worker the core."""
    recipe = {
        "name": "fox",
        "start": {"init_text": INIT_WORD},
        "data": {"folder": str(TRAIN_DIR)},
        "train": {"steps": LONG},
        "save": {"images_every": 0, "csv_every": 0},
    }
    run = (await client.create_run(recipe)).id
    async with asyncio.timeout(120):
        while not (await client.run(run)).step:  # noqa: ASYNC110 - a stream of events would be load
            await asyncio.sleep(0.1)
    worker = (await client.state()).worker.pid
    for task in os.listdir(f"/proc/{worker}/task"):
        os.sched_setaffinity(int(task), {core})
    return run


async def measure_pair(client: Client, run: str, pid: int, seconds: float, number: int) -> None:
    alone_ms = await step_ms(client, run, seconds)
    waits: list[float] = []
    async with crowd(client.socket, waits):
        beside_ms = await step_ms(client, run, seconds)
    ratio = beside_ms / alone_ms
    print(f"{number}: step {alone_ms:.1f} ms alone, {beside_ms:.1f} ms beside the clients ({ratio:.3f})")
    print(f"{number}: {len(waits) / seconds:.0f} calls of /v1/state a second, {tell(waits)}; {memory(pid)}")


async def step_ms(client: Client, run: str, seconds: float) -> float:
    """Mean time of a step over about so many seconds, between two reports of the worker."""
    first, begun = await next_report(client, run)
    await asyncio.sleep(seconds)
    last, ended = await next_report(client, run)
    return 1000 * (ended - begun) / (last - first)


async def next_report(client: Client, run: str) -> tuple[int, float]:
    known = (await client.run(run)).step
    while (step := (await client.run(run)).step) == known:  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.01)
    return step, time.monotonic()


@contextlib.asynccontextmanager
async def crowd(socket: Path, waits: list[float]) -> AsyncIterator[None]:
    """All clients at once; how long each call waited is added to `waits`."""
    tasks = [asyncio.create_task(listen(socket, stalled=number == 0)) for number in range(STREAMS)]
    tasks += [asyncio.create_task(call_at_rate(socket, number, waits)) for number in range(CALLERS)]
    await asyncio.sleep(1)
    waits.clear()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def listen(socket: Path, *, stalled: bool) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(EVENTS)
    if stalled:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a Unix socket's transport reads
        await asyncio.Event().wait()
    while await reader.readline():
        pass


async def call_at_rate(socket: Path, number: int, waits: list[float]) -> None:
    """One of the callers; their calls are spread evenly over the second, whether or not the last one took long."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_unix_connection(socket)
    interval_s = CALLERS / CALLS_PER_S
    due = loop.time() + interval_s * number / CALLERS
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        await call(reader, writer)
        waits.append(loop.time() - due)  # a call that another one held up has waited since it was due
        due += interval_s


async def call_until(socket: Path, deadline: float) -> list[float]:
    reader, writer = await asyncio.open_unix_connection(socket)
    waits = []
    while (begun := time.monotonic()) < deadline:
        await call(reader, writer)
        waits.append(time.monotonic() - begun)
    return waits


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(STATE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
    await reader.readexactly(int(length))


def tell(waits_s: list[float]) -> str:
    waits = sorted(waits_s)
    return (
        f"median {1000 * statistics.median(waits):.1f} ms, p99 {1000 * waits[int(len(waits) * 0.99)]:.1f} ms,"
        f" longest {1000 * waits[-1]:.0f} ms"
    )


def memory(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return f"service {kib['VmRSS'] >> 10} MiB, at most {kib['VmHWM'] >> 10} MiB"


if __name__ == "__main__":
    main()
