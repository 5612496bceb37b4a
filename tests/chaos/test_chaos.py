"""Services and workers are killed at random moments of a scripted run of jobs, and nothing is lost or done twice.

`make chaos KILLS=200 SEED=7` kills 200 of each and prints what happens; `FIRST=120` begins at the 120th kill of that
seed. A short one is in tests/journeys/test_survival.py.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.chaos.days import spend_days, train_undisturbed
from tests.chaos.house import House
from tests.chaos.killer import draw

KILLS = int(os.environ.get("VOCABLE_KILLS", "40"))
SEED = int(os.environ.get("VOCABLE_SEED", "7"))
FIRST = int(os.environ.get("VOCABLE_FIRST", "1"))


@pytest.mark.chaos
async def test_nothing_is_lost_or_done_twice_whenever_service_and_worker_are_killed(tmp_path: Path) -> None:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {text}", flush=True)

    say(f"seed {SEED}, {KILLS} kills of each, from the {FIRST}th; in {tmp_path}")
    async with House(tmp_path / "calm") as calm:
        twins = await train_undisturbed(calm)
        await calm.stop()
    async with House(tmp_path / "house") as house:
        shutil.copy(tmp_path / "calm" / "embeddings" / "rested.safetensors", house.gift)
        await spend_days(house, draw(SEED, KILLS)[FIRST - 1 :], twins, say=say)
