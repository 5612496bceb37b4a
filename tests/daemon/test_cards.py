"""A card's memory around the life of a worker; the driver is a script that answers as nvidia-smi does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from daemon import cards, gpu, keeper
from tests.daemon.conftest import PATIENCE_S, Running


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers to a query of cards with free memory that grows in three looks; `holders` lists processes."""
    folder = tmp_path / "driver"
    folder.mkdir()
    script = folder / "nvidia-smi"
    script.write_text(
        f'#!/bin/sh\ncd "{folder}"\ncase "$1" in\n'
        "  --query-gpu=*) echo look >> looks; n=$(wc -l < looks); [ $n -gt 3 ] && n=3\n"
        '    echo "GPU-1, A card, 570.1, 80000, ${n}0000";;\n'
        "  --query-compute-apps=*) cat holders;;\nesac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(cards, "INTERVAL_S", 0.001)
    return folder


def looks(driver: Path) -> int:
    return len((driver / "looks").read_text().splitlines())


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_memory_is_back_when_three_looks_find_the_same(driver: Path) -> None:
    await cards.wait_for_memory()
    assert looks(driver) == 5


async def test_a_driver_that_hangs_or_an_absent_tool_is_not_waited_for(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (driver / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(gpu, "TIMEOUT_S", 0.05)
    async with asyncio.timeout(PATIENCE_S):
        await cards.wait_for_memory()
        assert await cards.name_others(None) == ""
        monkeypatch.setenv("PATH", str(driver.parent))
        await cards.wait_for_memory()


async def test_others_are_named_but_not_the_worker_nor_numbers_of_another_machine(driver: Path) -> None:
    own, here = os.getppid(), os.getpid()
    name = name_of(here)
    rows = [f"GPU-1, {own}, {name_of(own)}, 2048", f"GPU-1, {here}, /opt/{name}, 1024"]
    rows += [f"GPU-1, {here}, /opt/something else, 4096", "GPU-1, 999999999, python, 4096"]
    (driver / "holders").write_text("\n".join(rows) + "\n")
    said = await cards.name_others(own)
    assert said.startswith(f"Others use the card too: {name} of ")
    assert said.endswith(f"(pid {here}) holds 1.0 GiB.")


async def test_the_next_worker_waits_until_the_memory_of_the_last_one_is_back(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, back = asyncio.Event(), asyncio.Event()

    async def wait_for_memory() -> None:
        asked.set()
        await back.wait()

    async def name_others(own: int | None) -> str:
        return f"Others use the card too: not {own}."

    monkeypatch.setattr(keeper, "wait_for_memory", wait_for_memory)
    monkeypatch.setattr(keeper, "name_others", name_others)
    run = await running.train()
    worker = await running.crew.worker()
    worker.say(type="ready", device="cuda:0 (A card)")
    async with asyncio.timeout(PATIENCE_S):
        while (await running.client.state()).worker.note != "Others use the card too: not 4000000.":
            pass
        worker.die()
        await asked.wait()
        assert (await running.client.run(run.id)).restarts == 1
        assert len(running.crew.workers) == 1
        back.set()
        await (await running.crew.worker(2)).told("train", run=run.id)
