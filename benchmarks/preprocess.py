"""Figures of preparing pictures: how much a second core gives, and whether memory stays flat.

`python benchmarks/preprocess.py [--pictures 1000] [--rounds 3] [--focal]`. One core and two take turns over the same
pictures of 1024 px, each time into an empty folder, the whole program kept to those cores. Memory is the proportional
set size of the process and its children at its highest, sampled ten times a second, in the first and the second half of
the work. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from engine.preprocess.request import FocalCrop, PreprocessOptions, PreprocessRequest
from engine.preprocess.results import PictureDone
from engine.preprocess.run import preprocess

SIDE = 1024
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--focal", action="store_true", help="with the search for faces, edges and the richest region")
    arguments = parser.parse_args()
    options = PreprocessOptions(height=384, focal_crop=FocalCrop(enabled=arguments.focal))
    with tempfile.TemporaryDirectory(prefix="vocable-benchmark-") as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for number in range(arguments.pictures):
            write_picture(source / f"{number}.jpg", number)
        print(f"{arguments.pictures} pictures of {SIDE} x {SIDE} px, load {os.getloadavg()[0]:.1f}")
        ratios = []
        for number in range(arguments.rounds):
            rates = [measure(source, Path(folder) / f"{number}-{workers}", options, workers) for workers in (1, 2)]
            ratios.append(rates[1] / rates[0])
        print(f"two over one, median of {arguments.rounds}: {np.median(ratios):.2f}")


def write_picture(path: Path, number: int) -> None:
    """A smooth picture with some grain, like a photo; some 300 kB as JPEG."""
    draw = np.random.default_rng(number)
    small = Image.fromarray(draw.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    grain = draw.standard_normal((SIDE, SIDE, 1), np.float32) * 6
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)


def measure(source: Path, destination: Path, options: PreprocessOptions, workers: int) -> float:
    """Prepare everything on so many cores; prints and returns pictures a second."""
    request = PreprocessRequest(source=str(source), destination=str(destination), options=options)
    samples: list[float] = []
    stop = threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(samples, stop))
    watcher.start()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:workers])
    started, before = time.monotonic(), cpu_seconds()
    made = sum(isinstance(event, PictureDone) for event in preprocess(request, workers=workers))
    elapsed = time.monotonic() - started
    here, there = ((after - before) / made * 1000 for after, before in zip(cpu_seconds(), before, strict=True))
    os.sched_setaffinity(0, allowed)
    stop.set()
    watcher.join()
    half = len(samples) // 2
    first, second = max(samples[:half], default=0), max(samples[half:])
    print(
        f"  {workers} core(s): {made / elapsed:6.2f} pictures/s; CPU a picture {there:.0f} ms in children, "
        f"{here:.1f} ms here; memory {first:.0f} then {second:.0f} MiB at most"
    )
    return made / elapsed


def cpu_seconds() -> tuple[float, float]:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


def watch_memory(samples: list[float], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        samples.append(sum(proportional_set(process) for process in (os.getpid(), *children())) / MIB)


def children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    found: list[int] = []
    for task in tasks.iterdir():
        with contextlib.suppress(OSError):
            found += [int(process) for process in (task / "children").read_text().split()]
    return found


def proportional_set(process: int) -> int:
    """Bytes of memory, what is shared counted by its part."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0


if __name__ == "__main__":
    main()
