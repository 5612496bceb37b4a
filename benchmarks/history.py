"""How fast a history of a million steps is plotted, and what thinning it costs everybody else.

    python benchmarks/history.py [STEPS]

Prints milliseconds. A query is made as the service makes it, through the history's thread; `late` is how much later
than asked the event loop came back from a sleep while old losses were thinned, and `save` how long a save took then.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from daemon.history import History
from daemon.losses import KEPT_WHOLE
from daemon.runs import Run, new_run
from engine.events import Step
from engine.recipe import build_recipe

RECIPE = build_recipe({"name": "word", "data": {"folder": "faces"}})


async def add_run(history: History, name: str, length: int, ended_at: float) -> Run:
    run = new_run(RECIPE, name, Path("/runs"), 1.0, now=ended_at)
    run.view.state, run.view.ended_at = "finished", ended_at
    await history.add_run(run, key="", digest="")
    for first in range(1, length + 1, 100_000):
        last = min(first + 100_000, length + 1)
        run.losses = [Step(step, 0.1 + 1 / step, 0.005) for step in range(first, last)]
        await history.save([run])
    return run


async def time_query(history: History, run: Run, points: int) -> str:
    """Median and slowest of thirty, in milliseconds."""
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        await history.losses(run.id, points)
        times.append(time.perf_counter() - begin)
    return f"{1000 * median(times):.1f} ms, slowest {1000 * max(times):.1f} ms"


async def measure_delays(history: History, other: Run, thinning: asyncio.Task[None]) -> tuple[float, float]:
    """The latest wake of the loop and the longest save while `thinning` goes on, in milliseconds."""
    late = save = 0.0
    while not thinning.done():
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        late = max(late, time.perf_counter() - begin - 0.001)
        begin = time.perf_counter()
        await history.save([other])
        save = max(save, time.perf_counter() - begin)
    await thinning
    return 1000 * late, 1000 * save


async def main(length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocable.db"
        history = History(path)
        await history.open(now=0.0)
        run = await add_run(history, "long", length, 1.0)
        for number in range(KEPT_WHOLE):
            other = await add_run(history, f"new{number}", 10, 2.0 + number)
        print(f"{length} steps, {path.stat().st_size / 1e6:.0f} MB")
        for points in (200, 2000):
            print(f"query of {points} points: {await time_query(history, run, points)}")
        begin = time.perf_counter()
        thinning = asyncio.create_task(history.thin())
        late, save = await measure_delays(history, other, thinning)
        print(f"thinning: {1000 * (time.perf_counter() - begin):.0f} ms; late {late:.1f} ms, save {save:.1f} ms")
        print(f"query of 2000 points, thinned: {await time_query(history, run, 2000)}")
        await history.close()
        begin = time.perf_counter()
        history = History(path)
        await history.open(now=0.0)
        print(f"opening: {1000 * (time.perf_counter() - begin):.0f} ms")
        await history.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
